//! A VIP at two sites behind a router, while backends and a site come and go. Each act checks what it shows.

use std::{
    io::{self, BufRead as _, BufReader, Read as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tests::lab::{Anycast, LONG, wait};

use crate::{
    graph::{Counts, Graph, LOST, ROWS},
    page::{print, seen, title, typed},
    stage::{PREFIX, program},
};

const PICTURE: &str = "
                                           ┌── MEC host: site 1 ──┐
                                        ┌──┤ XDP ══╦══ backend a  │
  ┌───────────┐     ┌───────────────┐   │  │ BIRD  ╚══ backend b  │
  │  client   ├─────┤ router (BIRD) ├───┤  └──────────────────────┘
  │ 10.45.0.7 │     │ prefers site 1│   │  ┌── MEC host: site 2 ──┐
  └───────────┘     └───────────────┘   └──┤ XDP ══╦══ backend a  │
                                           │ BIRD  ╚══ backend b  │
                                           └──────────────────────┘
  Both sites announce the VIP 203.0.113.80 by BGP, while a backend of theirs is healthy (asked once a second).
  The client asks it for a page all the time. Every box, and each backend, is a network namespace.";

/// So many ask at once, and each pauses between two requests.
const ASKERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(80);
/// A request that takes longer is lost.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the graph is drawn.
const FRAME: Duration = Duration::from_millis(250);
/// How long to look at what has settled.
const LOOK: Duration = Duration::from_secs(3);
const A: &str = "site1 a";
const B: &str = "site1 b";

/// What to do with a lab that was kept.
pub(crate) fn hints() -> Result<String> {
    let edgesteer = program()?;
    let [client, site, router] = ["client", "site1", "router"].map(|it| format!("{PREFIX}-{it}"));
    Ok(format!(
        "
The lab stays. To play with it:

  ip netns exec {client} curl http://203.0.113.80/
      ask the VIP
  {edgesteer} --server unix:/run/{site}/api.sock get vips
      how it is at site 1; also: get flows, get ports, get reasons; the other site is {PREFIX}-site2
  $EDITOR /run/{site}/rules.d/video.json
      drain a backend: its state is UP or DRAINING; saving is enough
  ip netns pids {site}-a | xargs kill
      kill a backend
  birdc -s /run/{router}/bird.ctl show route
      what the router hears
  tail -f /run/{site}/log
      what the daemon of site 1 has to say

  cargo xtask demo --clean
      remove it all"
    ))
}

pub(crate) fn play() -> Result<()> {
    print(PICTURE);
    let mut lab = Anycast::named(PREFIX, 2)?;
    let graph = Graph::new();
    let over = AtomicBool::new(false);
    let until_over = |action: &dyn Fn(), pause| {
        while !over.load(Ordering::Relaxed) {
            action();
            sleep(pause);
        }
    };
    let acts = thread::scope(|scope| {
        for _ in 0..ASKERS {
            scope.spawn(|| until_over(&|| graph.ended(lab.ask(PATIENCE).as_deref()), PAUSE));
        }
        scope.spawn(|| until_over(&|| graph.redraw(), FRAME));
        let acts = Play::new(&lab, &graph).all();
        over.store(true, Ordering::Relaxed);
        acts
    })?;
    print(&table(&acts));
    lab.keep();
    Ok(())
}

/// An act that is over.
struct Act {
    name: &'static str,
    ended: Instant,
    counts: Counts,
    converged: Option<Duration>,
}

struct Play<'a> {
    lab: &'a Anycast,
    graph: &'a Graph,
    begun: Instant,
    acts: Vec<Act>,
}

impl<'a> Play<'a> {
    fn new(lab: &'a Anycast, graph: &'a Graph) -> Self {
        Self {
            lab,
            graph,
            begun: Instant::now(),
            acts: Vec::new(),
        }
    }

    fn all(mut self) -> Result<Vec<Act>> {
        let [a, b, c, d, lost] = self.act("both backends", Self::share)?;
        ensure!(a > 0 && b > 0, "one backend of site 1 serves nobody");
        ensure!(c + d + lost == 0, "site 2 serves, or something is lost");

        let [a, b, c, d, lost] = self.act("a drains", Self::drain)?;
        ensure!(a + b > 0 && c + d + lost == 0, "a drain costs requests");

        let [_, b, c, d, _] = self.act("a is killed", Self::kill)?;
        ensure!(b > 0 && c + d == 0, "site 1 should have served");

        let [a, _, c, d, _] = self.act("b is killed too", Self::fail_over)?;
        ensure!(a == 0 && c > 0 && d > 0, "site 2 should have served");

        let [a, b, _, _, lost] = self.act("both come back", Self::come_back)?;
        // What is under way just as the route changes ends at a site that does not know it.
        ensure!(
            a + b > 0 && lost <= ASKERS,
            "coming back costs {lost} requests"
        );
        Ok(self.acts)
    }

    /// Has an act played, and says who served in it.
    fn act(
        &mut self,
        name: &'static str,
        play: impl FnOnce(&Self) -> Result<Option<Duration>>,
    ) -> Result<Counts> {
        let begun = self.acts.last().map_or(self.begun, |it| it.ended);
        self.graph.mark(begun);
        let converged = play(self)?;
        let ended = Instant::now();
        let counts = self.graph.counts(begun, ended);
        let served: Vec<_> = ROWS
            .iter()
            .zip(counts)
            .map(|(row, count)| format!("{row}: {count}"))
            .collect();
        self.graph
            .tell(|| seen(&format!("requests in this act: {}", served.join(", "))));
        self.acts.push(Act {
            name,
            ended,
            counts,
            converged,
        });
        Ok(counts)
    }

    fn share(&self) -> Result<Option<Duration>> {
        self.title("Both sites announce the VIP; site 1 serves, with both of its backends");
        self.seen(&format!("the router sends to site {}", self.preferred()?));
        sleep(LOOK);
        Ok(None)
    }

    fn drain(&self) -> Result<Option<Duration>> {
        self.title("Backend a drains: it keeps what it has, and gets nothing new");
        let download = self.download(A)?;
        self.seen("a download of some seconds has begun, and a serves it");
        self.typed("sed -i 0,/UP/s//DRAINING/ rules.d/video.json   # backend a");
        let drained = Instant::now();
        self.lab.sites[0].say(["DRAINING", "UP"])?;
        self.wait_state("DRAINING")?;
        let (octets, ended) = download.finish()?;
        ensure!(octets == LONG, "{octets} octets of the download came");
        let last = self.since(drained, self.graph.last(A, drained));
        let took = ended.duration_since(drained);
        ensure!(last < took / 2, "a got new requests for {last:?}");
        self.seen(&format!(
            "a answered no request from {} s on; its download came whole, {octets} octets, {} s after the drain began",
            seconds(last), seconds(took)
        ));
        self.lab.sites[0].say(["UP", "UP"])?;
        self.wait_for(A)?;
        self.seen("the drain is over, and a serves again");
        Ok(Some(last))
    }

    fn kill(&self) -> Result<Option<Duration>> {
        self.title("Backend a is killed");
        let (of_a, of_b) = (self.download(A)?, self.download(B)?);
        self.typed(&format!("kill -KILL $(ip netns pids {PREFIX}-site1-a)"));
        let killed = Instant::now();
        self.lab.sites[0].kill(0);
        let (of_a, of_b) = (of_a.finish()?.0, of_b.finish()?.0);
        ensure!(of_a < LONG && of_b == LONG, "{of_a} and {of_b} octets came");
        self.wait_state("DOWN")?;
        // What was asked before has ended then.
        sleep(2 * PATIENCE);
        let last = self.since(killed, self.graph.last(LOST, killed));
        let lost = self.graph.counts(killed, Instant::now())[ROWS.len() - 1];
        self.seen(&format!(
            "{lost} requests were lost, in {} s, until its health check failed; then b had all",
            seconds(last)
        ));
        self.seen(&format!(
            "a's download broke off after {of_a} octets; b's came whole, {of_b} octets"
        ));
        Ok(Some(last))
    }

    fn fail_over(&self) -> Result<Option<Duration>> {
        self.title("Backend b is killed too: site 1 withdraws the VIP, and site 2 serves");
        self.typed(&format!("kill -KILL $(ip netns pids {PREFIX}-site1-b)"));
        let killed = Instant::now();
        self.lab.sites[0].kill(1);
        let time = self.since(killed, Some(self.wait_for("site2")?));
        self.seen(&format!(
            "the router sends to site {}; its first answer came after {} s",
            self.preferred()?,
            seconds(time)
        ));
        sleep(LOOK);
        Ok(Some(time))
    }

    fn come_back(&self) -> Result<Option<Duration>> {
        self.title(
            "The backends of site 1 are back; it is trusted with the VIP after its hold-down, 2 s",
        );
        self.typed("python3 server.py   # for backends a and b");
        let back = Instant::now();
        self.lab.sites[0].serve(0)?;
        self.lab.sites[0].serve(1)?;
        let time = self.since(back, Some(self.wait_for("site1")?));
        self.seen(&format!(
            "the router sends to site {}; its first answer came after {} s",
            self.preferred()?,
            seconds(time)
        ));
        sleep(LOOK);
        Ok(Some(time))
    }

    fn title(&self, text: &str) {
        self.graph.tell(|| title(self.acts.len() as u32 + 1, text));
    }

    fn typed(&self, command: &str) {
        self.graph.tell(|| typed(command));
    }

    fn seen(&self, text: &str) {
        self.graph.tell(|| seen(text));
    }

    fn preferred(&self) -> Result<usize> {
        self.lab
            .preferred()
            .context("the router has no route to the VIP")
    }

    /// How long after an event something was; at once, if it never was.
    fn since(&self, event: Instant, moment: Option<Instant>) -> Duration {
        moment.map_or(Duration::ZERO, |it| it.duration_since(event))
    }

    /// Waits until one answers whose name begins so; says when.
    fn wait_for(&self, name: &str) -> Result<Instant> {
        let now = Instant::now();
        wait("the failover", || {
            let first = self.graph.first(name, now);
            first.with_context(|| format!("{name} does not answer"))
        })
    }

    /// Waits until backend a is in this state.
    fn wait_state(&self, state: &str) -> Result<()> {
        wait("the state of backend a", || {
            let status = self.lab.sites[0].status()?;
            ensure!(status["backends"][0]["state"] == state, "{status}");
            Ok(())
        })
    }

    /// Begins a long download that this backend serves.
    fn download(&self, of: &str) -> Result<Download> {
        wait("a download", || {
            let mut download = BufReader::new(self.lab.download()?);
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                ensure!(download.read_line(&mut line)? > 0, "no answer");
            }
            let mut name = vec![0; of.len()];
            download.read_exact(&mut name)?;
            ensure!(name == of.as_bytes(), "another serves");
            Ok(Download(thread::spawn(|| rest(download))))
        })
    }
}

/// A download on its way: octets after the name of who serves it, and when it ended.
struct Download(JoinHandle<(usize, Instant)>);

impl Download {
    fn finish(self) -> Result<(usize, Instant)> {
        self.0.join().ok().context("a download panicked")
    }
}

fn rest(mut download: BufReader<TcpStream>) -> (usize, Instant) {
    let mut octets = Vec::new();
    // What came until it broke off counts.
    let _: io::Result<usize> = download.read_to_end(&mut octets);
    (octets.len(), Instant::now())
}

fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}

fn table(acts: &[Act]) -> String {
    let header = ROWS.map(|row| format!("{row:>9}")).concat();
    let mut lines = vec![format!("\n   {:<20}{header}  converged after", "act")];
    for (number, act) in (1..).zip(acts) {
        let counts = act.counts.map(|count| format!("{count:>9}")).concat();
        let converged = act
            .converged
            .map_or_else(|| "-".to_owned(), |it| format!("{} s", seconds(it)));
        lines.push(format!(
            "   {number}. {:<17}{counts}  {converged:>15}",
            act.name
        ));
    }
    lines.join("\n")
}
