//! The demo, as people end it: kept and cleaned, or interrupted.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tests::lab;

/// How long a demo may take for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// A demo, and what of it is there while it is up.
struct Demo {
    options: &'static [&'static str],
    client: &'static str,
    url: &'static str,
    answer: &'static str,
    socket: &'static str,
}

const DEMOS: [Demo; 3] = [
    Demo {
        options: &[],
        client: "ue",
        url: "http://203.0.113.9/",
        answer: "the data network",
        socket: "/run/edgesteer-demo/api.sock",
    },
    Demo {
        options: &["--gtpu"],
        client: "ue-0",
        url: "http://203.0.113.9/",
        answer: "the data network",
        socket: "/run/edgesteer-demo/api.sock",
    },
    Demo {
        options: &["--vip"],
        client: "client",
        url: "http://203.0.113.80/",
        answer: "site1",
        socket: "/run/edgesteer-demo-site1/api.sock",
    },
];

/// One after the other: there is one lab.
#[test]
fn a_lab_stays_if_it_is_kept_and_goes_if_the_demo_is_interrupted() {
    lab::build().unwrap();
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo.out");
    for it in DEMOS {
        let kept = [it.options, &["--keep"]].concat();
        let said = File::create(&output).unwrap();
        assert!(ended(&mut demo(&kept, said.into())), "{kept:?}");
        if it.options == ["--vip"] {
            is_told_of_vip(&fs::read_to_string(&output).unwrap());
        }
        let namespace = format!("edgesteer-demo-{}", it.client);
        let mut curl = Command::new("ip");
        curl.args(["netns", "exec", &namespace]);
        curl.args(["curl", "-sS", "--max-time", "5", it.url]);
        let answer = curl.output().unwrap();
        let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
        assert!(answer.contains(it.answer), "{answer}");
        assert!(ended(&mut demo(&["--clean"], Stdio::null())));
        assert_eq!(left(), Vec::<String>::new(), "{kept:?}, cleaned");

        let mut interrupted = demo(&kept, Stdio::null());
        within(&mut interrupted, |_| Path::new(it.socket).exists());
        // As Ctrl-C does: all of them hear it.
        let group = format!("-{}", interrupted.id());
        let kill = Command::new("kill").args(["-INT", "--", &group]).status();
        assert!(kill.unwrap().success());
        assert!(!ended(&mut interrupted), "{kept:?}, interrupted");
        assert_eq!(left(), Vec::<String>::new(), "{kept:?}, interrupted");
    }
}

#[test]
fn there_is_one_demo_at_a_time() {
    let mut both = demo(&["--gtpu", "--vip"], Stdio::null());
    assert!(!ended(&mut both));
}

/// The acts come in order, and their table says that nothing was lost but where backends were killed.
fn is_told_of_vip(output: &str) {
    let lines: Vec<_> = output.lines().map(str::trim_start).collect();
    let titles = (1..=5).map(|number| {
        let number = format!("{number}. ");
        lines.iter().position(|it| it.starts_with(&number)).unwrap()
    });
    assert!(titles.is_sorted(), "{output}");
    assert!(!output.contains('\x1b'), "this is no terminal: {output}");
    let summaries = lines
        .iter()
        .filter(|it| it.contains("requests in this act"));
    assert_eq!(summaries.count(), 5, "{output}");

    let table = lines.iter().position(|it| it.starts_with("act ")).unwrap();
    let acts: Vec<_> = lines[table + 1..][..5]
        .iter()
        .map(|it| counts(it))
        .collect();
    let lost: Vec<_> = acts.iter().map(|it| it[4]).collect();
    assert_eq!(lost[..2], [0, 0], "{output}");
    assert!(lost[2] + lost[3] > 0, "{output}");
    // What is under way at the other site as the route changes: one for each who asks.
    assert!(lost[4] <= 4, "{output}");
    let [both, drain, killed, other, back] = acts[..].try_into().unwrap();
    assert!(both[0] > 0 && both[1] > 0, "{output}");
    assert!(drain[1] > 2 * drain[0], "{output}");
    assert!(killed[1] > 0 && killed[2..4] == [0, 0], "{output}");
    assert!(other[0] == 0 && other[2] > 0 && other[3] > 0, "{output}");
    assert!(back[0] > 0 && back[1] > 0 && back[2] > 0, "{output}");
}

/// Requests by who served them and, at last, those lost: what is in a line of the table before the time.
fn counts(line: &str) -> [u32; 5] {
    let line = line.trim_end_matches([' ', 's', '-']);
    let (counts, time) = match line.rsplit_once(' ') {
        Some((counts, time)) if time.contains('.') => (counts, time),
        _ => (line, "0"),
    };
    assert!(time.parse::<f64>().unwrap() < 20.0, "{line}");
    let mut words: Vec<_> = counts.split_whitespace().rev().take(5).collect();
    words.reverse();
    let numbers: Vec<_> = words.iter().map(|it| it.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

/// Starts a demo.
fn demo(options: &[&str], output: Stdio) -> Child {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    let demo = demo.args(options).process_group(0);
    demo.stdout(output).spawn().unwrap()
}

/// Whether it ends well.
fn ended(demo: &mut Child) -> bool {
    within(demo, |demo| demo.try_wait().unwrap().is_some());
    demo.wait().unwrap().success()
}

#[track_caller]
fn within(demo: &mut Child, is_so: impl Fn(&mut Child) -> bool) {
    let begun = Instant::now();
    while !is_so(demo) {
        if begun.elapsed() > PATIENCE {
            demo.kill().unwrap();
            panic!("nothing in {PATIENCE:?}");
        }
        sleep(Duration::from_millis(50));
    }
}

/// What is there of a lab.
fn left() -> Vec<String> {
    let mut left = Vec::new();
    for directory in ["/run/netns", "/run", "/sys/fs/bpf"] {
        let entries = fs::read_dir(directory).into_iter().flatten();
        let names = entries.map(|it| it.unwrap().file_name().to_string_lossy().into_owned());
        left.extend(names.filter(|name| name.starts_with("edgesteer-demo")));
    }
    left
}
