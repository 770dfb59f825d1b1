//! What a task looks like on a terminal: bold, dim and colors only where there is one.

use std::{
    env,
    fmt::Display,
    io::{IsTerminal as _, stdout},
    time::Duration,
};

pub(crate) fn bold(text: impl Display) -> String {
    style("1", text)
}

pub(crate) fn dim(text: impl Display) -> String {
    style("2", text)
}

pub(crate) fn red(text: impl Display) -> String {
    style("1;31", text)
}

pub(crate) fn green(text: impl Display) -> String {
    style("1;32", text)
}

/// `0.4 s`, `12.3 s`, `2 min 05 s`.
pub(crate) fn elapsed(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}

fn style(code: &str, text: impl Display) -> String {
    if stdout().is_terminal() && env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_string()
    }
}
