//! What an earlier run left behind.

use std::{fs, path::Path};

use dataplane_user::netlink::Link;

use super::{Finding, Plan, port::is_ours};

/// Pins of a data path that runs nowhere: those of interfaces that are gone, or of a run that was cut short.
pub(super) fn findings(plan: &Plan, links: &[Link]) -> Option<Finding> {
    const CHECK: &str = "pins";
    const HOST: &str = "host";
    let pins = count(&plan.pin_directory);
    if pins == 0 {
        return None;
    }
    let directory = plan.pin_directory.display();
    let mut programs = links.iter().filter_map(|link| link.xdp);
    // Without the privilege to see whose they are, any may be ours.
    if programs.any(|xdp| xdp.program().is_none_or(|program| is_ours(&program))) {
        return Some(Finding::ok(
            CHECK,
            HOST,
            format_args!("{directory} is in use"),
        ));
    }
    Some(Finding::warning(
        CHECK,
        HOST,
        format_args!("{directory} holds {pins} pins, but our program is on no interface"),
        "start the daemon, which takes them up, or remove them: edgesteer detach --yes".to_owned(),
    ))
}

/// A directory that cannot be read has none.
fn count(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let entries = entries.filter_map(Result::ok).map(|entry| entry.path());
    entries
        .map(|path| if path.is_dir() { count(&path) } else { 1 })
        .sum()
}
