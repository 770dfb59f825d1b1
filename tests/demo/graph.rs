//! Who answers, counted request by request, and drawn on a terminal as it happens.

use std::{
    io::{IsTerminal as _, stdout},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::page::{put, style};

/// Who may answer, by the names that they answer with, and at last nobody.
pub(crate) const ROWS: [&str; 5] = ["site1 a", "site1 b", "site2 a", "site2 b", LOST];
/// The row of requests without an answer.
pub(crate) const LOST: &str = "lost";
/// How much time a column of the graph stands for.
const COLUMN: Duration = Duration::from_millis(500);
const COLUMNS: usize = 60;
/// What a column shows, from nothing to the most of all columns in sight.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Lines that the graph takes.
const HEIGHT: usize = ROWS.len() + 3;

/// Requests, in the order of [`ROWS`].
pub(crate) type Counts = [usize; ROWS.len()];

/// All requests so far, below what is said.
pub(crate) struct Graph {
    begun: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When each request ended, and in which row.
    requests: Vec<(Instant, usize)>,
    /// When each act began.
    acts: Vec<Instant>,
    is_drawn: bool,
}

impl Graph {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            state: Mutex::default(),
        }
    }

    /// Notes that a request has just ended, and who answered it.
    pub(crate) fn ended(&self, answer: Option<&str>) {
        let mut state = self.state();
        let lost = ROWS.len() - 1;
        let row = ROWS.iter().position(|it| Some(*it) == answer);
        state.requests.push((Instant::now(), row.unwrap_or(lost)));
    }

    /// Marks the beginning of an act.
    pub(crate) fn mark(&self, begun: Instant) {
        self.state().acts.push(begun);
    }

    /// Requests that ended between these moments.
    pub(crate) fn counts(&self, from: Instant, to: Instant) -> Counts {
        let mut counts = Counts::default();
        for (ended, row) in &self.state().requests {
            counts[*row] += usize::from((from..to).contains(ended));
        }
        counts
    }

    /// When the first request after this moment ended in a row whose name begins so.
    pub(crate) fn first(&self, name: &str, after: Instant) -> Option<Instant> {
        let state = self.state();
        let mut requests = state.requests.iter();
        let found = requests.find(|it| it.0 > after && ROWS[it.1].starts_with(name));
        found.map(|it| it.0)
    }

    /// When the last request after this moment ended in a row whose name begins so.
    pub(crate) fn last(&self, name: &str, after: Instant) -> Option<Instant> {
        let state = self.state();
        let mut requests = state.requests.iter();
        let found = requests.rfind(|it| it.0 > after && ROWS[it.1].starts_with(name));
        found.map(|it| it.0)
    }

    /// Has something printed, above the graph.
    pub(crate) fn tell(&self, say: impl FnOnce()) {
        let mut state = self.state();
        if state.is_drawn {
            put(&format!("\x1b[{HEIGHT}A\x1b[J"));
        }
        state.is_drawn = false;
        say();
        self.draw(&mut state);
    }

    /// Draws what came since, if this is a terminal.
    pub(crate) fn redraw(&self) {
        self.draw(&mut self.state());
    }

    fn draw(&self, state: &mut State) {
        if !stdout().is_terminal() {
            return;
        }
        let back = format!("\x1b[{HEIGHT}A");
        let back = if state.is_drawn { &*back } else { "" };
        let lines = self.lines(state);
        let lines: String = lines.iter().map(|it| format!("{it}\x1b[K\n")).collect();
        // Lines that are too long are cut off: the rest of them, in a line of its own, would not be drawn over.
        put(&format!("{back}\x1b[?7l{lines}\x1b[?7h"));
        state.is_drawn = true;
    }

    fn lines(&self, state: &State) -> [String; HEIGHT] {
        // The column that is not over is not shown.
        let column = |when: Instant| {
            (when.duration_since(self.begun).as_millis() / COLUMN.as_millis()) as usize
        };
        let end = column(Instant::now());
        let start = end.saturating_sub(COLUMNS);
        let place = |when: Instant| {
            column(when)
                .checked_sub(start)
                .filter(|it| *it < end - start)
        };
        let mut columns = [[0_usize; COLUMNS]; ROWS.len()];
        for (ended, row) in &state.requests {
            if let Some(place) = place(*ended) {
                columns[*row][place] += 1;
            }
        }
        let most = columns
            .iter()
            .flatten()
            .copied()
            .max()
            .unwrap_or_default()
            .max(1);
        let mut acts = [' '; COLUMNS];
        for (number, begun) in (1..).zip(&state.acts) {
            if let Some(place) = place(*begun) {
                acts[place] = char::from_digit(number, 10).unwrap_or('?');
            }
        }
        let rate = |columns: &[usize]| -> usize {
            let shown = &columns[..end - start];
            // Those of the last second.
            shown.iter().rev().take(2).sum()
        };
        let row = |row: usize| {
            let bars: String = columns[row]
                .iter()
                .map(|it| BARS[(it * 8).div_ceil(most)])
                .collect();
            let bars = style(if ROWS[row] == LOST { "31" } else { "32" }, &bars);
            format!("   {:<8}{bars}{:>4}/s", ROWS[row], rate(&columns[row]))
        };
        [
            String::new(),
            format!("   {:<8}{}", "act", String::from_iter(acts)),
            row(0),
            row(1),
            row(2),
            row(3),
            row(4),
            style("2", "           requests; a column is half a second"),
        ]
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It holds whatever somebody panicked at.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
