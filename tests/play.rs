//! The demo, as people end it: kept and cleaned, or interrupted.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tests::lab;

/// How long a demo may take for anything.
const PATIENCE: Duration = Duration::from_secs(120);
const SOCKET: &str = "/run/edgesteer-demo/api.sock";

/// One after the other: there is one lab.
#[test]
fn a_lab_stays_if_it_is_kept_and_goes_if_the_demo_is_interrupted() {
    lab::build().unwrap();
    for (options, ue) in [(&[][..], "ue"), (&["--gtpu"], "ue-0")] {
        let kept = [options, &["--keep"]].concat();
        assert!(ended(&mut demo(&kept)), "{kept:?}");
        let curl =
            format!("netns exec edgesteer-demo-{ue} curl -sS --max-time 5 http://203.0.113.9/");
        let answer = Command::new("ip").args(curl.split(' ')).output().unwrap();
        let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
        assert!(answer.contains("the data network"), "{answer}");
        assert!(ended(&mut demo(&["--clean"])));
        assert_eq!(left(), Vec::<String>::new(), "{kept:?}, cleaned");

        let mut interrupted = demo(&kept);
        within(&mut interrupted, |_| Path::new(SOCKET).exists());
        // As Ctrl-C does: all of them hear it.
        let group = format!("-{}", interrupted.id());
        let kill = Command::new("kill").args(["-INT", "--", &group]).status();
        assert!(kill.unwrap().success());
        assert!(!ended(&mut interrupted), "{kept:?}, interrupted");
        assert_eq!(left(), Vec::<String>::new(), "{kept:?}, interrupted");
    }
}

/// Starts a demo, which is for nobody to see.
fn demo(options: &[&str]) -> Child {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    let demo = demo.args(options).process_group(0);
    demo.stdout(Stdio::null()).spawn().unwrap()
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
