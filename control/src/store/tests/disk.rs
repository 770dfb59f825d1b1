//! What is on disk after crashes, failures and long runs.

use super::*;

#[tokio::test]
async fn a_disk_that_fails_undoes_the_change() {
    let directory = tempfile::tempdir().unwrap();
    let (dataplane, script) = scripted();
    let store = Store::open(directory.path(), dataplane, site()).unwrap();
    let push = async |id| {
        let application = all(&[application(id, &["r1"])]);
        store.deliver(Source::Files, application).await
    };
    push("before").await.unwrap();
    let full = std::fs::File::options().write(true).open("/dev/full");
    let log = store.disk.lock().unwrap().log.replace(full.unwrap());
    let problem = push("refused").await.unwrap_err();
    assert!(problem.detail.contains("No space left"), "{problem}");
    assert!(problem.detail.ends_with("was undone"), "{problem}");
    let rules: Vec<_> = script
        .lock()
        .unwrap()
        .applied
        .last()
        .unwrap()
        .iter()
        .map(|rule| rule.id.to_string())
        .collect();
    assert_eq!(rules, ["before/r1"]);
    assert_eq!(store.snapshot().revision, 1);
    assert_eq!(reopened(directory.path()), store.snapshot().applications);
    // Nobody knows what is in the log now, so the next change writes everything.
    store.disk.lock().unwrap().log = log;
    push("after").await.unwrap();
    assert_eq!(reopened(directory.path()), store.snapshot().applications);
    assert_eq!(store.snapshot().applications.len(), 1);
}

#[tokio::test]
async fn a_crash_at_any_moment_leaves_the_old_or_the_new() {
    let directory = tempfile::tempdir().unwrap();
    let (dataplane, _) = scripted();
    let store = Store::open(directory.path(), dataplane, site()).unwrap();
    let log = directory.path().join("state.log");
    let size = || std::fs::metadata(&log).unwrap().len() as usize;
    let mut ends = vec![(0, Applications::new())];
    for wanted in [
        all(&[application("a", &["r1"]), application("b", &["r1"])]),
        all(&[application("b", &["r2"]), application("c", &[])]),
        all(&[]),
    ] {
        store.deliver(Source::Files, wanted).await.unwrap();
        ends.push((size(), store.snapshot().applications.clone()));
    }
    let written = std::fs::read(&log).unwrap();
    let crashed = tempfile::tempdir().unwrap();
    let path = crashed.path().join("state.log");
    for cut in 0..=written.len() {
        let (_, expected) = ends.iter().rfind(|(end, _)| *end <= cut).unwrap();
        std::fs::write(&path, &written[..cut]).unwrap();
        assert_eq!(&reopened(crashed.path()), expected, "cut at {cut}");
    }
    // Blocks may reach the disk in any order: the end is there, something before it is not.
    let (last, expected) = &ends[ends.len() - 2];
    for hole in *last..written.len() {
        let mut holed = written.clone();
        holed[hole] = 0;
        std::fs::write(&path, &holed).unwrap();
        assert_eq!(&reopened(crashed.path()), expected, "hole at {hole}");
    }
    // No crash does this.
    let mut damaged = written;
    damaged[last - 9] = 0;
    std::fs::write(&path, &damaged).unwrap();
    let error = Disk::open(crashed.path()).unwrap_err().to_string();
    assert!(
        error.contains("line 2 of ") && error.contains("state.log"),
        "{error}"
    );
}

#[tokio::test]
async fn what_a_crash_cut_off_does_not_spoil_later_changes() {
    let directory = tempfile::tempdir().unwrap();
    let (dataplane, _) = scripted();
    std::fs::write(
        directory.path().join("state.log"),
        "0123456789abcdef {\"revis",
    )
    .unwrap();
    // A state that was being written anew.
    std::fs::write(directory.path().join("state.new"), "{").unwrap();
    let store = Store::open(directory.path(), dataplane, site()).unwrap();
    for id in ["a", "b"] {
        let wanted = vec![application(id, &["r1"])];
        let edit = replacement::<Entry>(Source::Mp2, wanted, &site()).unwrap();
        store.transact(Source::Mp2, edit).await.unwrap();
        assert_eq!(reopened(directory.path()), store.snapshot().applications);
    }
}

#[tokio::test]
async fn a_long_log_becomes_a_state() {
    let directory = tempfile::tempdir().unwrap();
    let (dataplane, _) = scripted();
    let store = Store::open(directory.path(), dataplane, site()).unwrap();
    let mut before = Vec::new();
    let size = |name: &str| std::fs::metadata(directory.path().join(name)).map_or(0, |m| m.len());
    let mut name = String::new();
    while size("state.json") == 0 {
        assert!(size("state.log") < 3 << 20, "the log only grows");
        before = std::fs::read(directory.path().join("state.log")).unwrap_or_default();
        name.push_str(&"x".repeat(10_000));
        let mut wanted = application("a", &["r1"]);
        wanted.app_name = Some(name.clone());
        store.deliver(Source::Files, all(&[wanted])).await.unwrap();
        // The state is written behind the back of whoever changed it.
        drop(store.disk.lock().unwrap());
    }
    assert_eq!(size("state.log"), 0);
    assert_eq!(reopened(directory.path()), store.snapshot().applications);
    // A crash between the two leaves changes that the state has.
    std::fs::write(directory.path().join("state.log"), before).unwrap();
    assert_eq!(reopened(directory.path()), store.snapshot().applications);
}

#[test]
fn a_foreign_state_file_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("state.json"), "{}").unwrap();
    let error = Store::open(directory.path(), Dataplane::new().0, site()).unwrap_err();
    assert!(error.to_string().contains("state.json"), "{error}");
}

pub(super) fn reopened(directory: &Path) -> Applications {
    Disk::open(directory).unwrap().2.applications
}

/// An earlier version may have accepted what this one refuses. The others go on.
#[tokio::test]
async fn a_rule_that_is_refused_now_is_kept_and_not_installed() {
    let directory = tempfile::tempdir().unwrap();
    let mut written = serde_json::to_value(application("a", &["good", "bad"])).unwrap();
    let bad = &mut written["trafficRules"][1];
    bad["action"] = json!("DUPLICATE_DECAPSULATED");
    bad["dstInterface"]["x-nat"] = json!(true);
    let state = json!({"revision": 7, "applications": [{"source": "mp2", "application": written}]});
    std::fs::write(directory.path().join("state.json"), state.to_string()).unwrap();

    let (dataplane, script) = scripted();
    let store = Store::open(directory.path(), dataplane, site()).unwrap();
    store.reconcile().await.unwrap();
    let script = script.lock().unwrap();
    let installed: Vec<_> = script.applied.last().unwrap().iter().collect();
    assert_eq!(installed.len(), 1);
    assert_eq!(installed[0].id.to_string(), "a/good");
    let applications = store.snapshot().applications.clone();
    let (_, entry) = applications.iter().next().unwrap();
    let why = entry.rules().find_map(|(id, _, outcome)| match outcome {
        Outcome::NotEnforceable(why) => Some(format!("{id}: {why}")),
        Outcome::Enforceable(_) => None,
    });
    let why = why.unwrap();
    assert!(why.starts_with("a/bad: this version refuses it: "), "{why}");
}
