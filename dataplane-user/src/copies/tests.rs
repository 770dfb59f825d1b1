//! Filters of the clsact qdisc, which every kernel still has. They need root.

use std::{fs, mem, path::Path, process::Command};

use aya::programs::tc::NlOptions;

use super::*;
use crate::{
    Limits,
    netlink::{self, Namespace},
    program::Pins,
};

#[test]
fn a_filter_takes_the_place_of_that_of_an_earlier_process() {
    let lab = Lab::new("restart");
    lab.attach("one");
    let first = lab.filters("one");
    lab.attach("one");
    let second = lab.filters("one");
    assert_eq!((first.len(), second.len()), (1, 1), "{first:?} {second:?}");
    assert_ne!(first, second, "it is the program of the later process");
}

#[test]
fn no_filter_is_left_behind() {
    let lab = Lab::new("detach");
    lab.attach("one");
    lab.attach("two");
    lab.inside(|copies| copies.detach(&["a", "b"])).unwrap();
    assert_eq!((lab.filters("one"), lab.filters("two")), (vec![], vec![]));
    // Again, when there is none: and when somebody has removed the qdisc.
    lab.attach("one");
    lab.run("tc qdisc del dev one clsact");
    lab.inside(|copies| copies.detach(&["a", "b"])).unwrap();

    // Who removes all pins does not know any port.
    lab.attach("one");
    lab.attach("two");
    lab.run("ip link del two");
    let removed = lab.namespace.run(|| lab.pins.remove()).unwrap().unwrap();
    assert!(
        removed.contains(&"the program that makes copies on one".to_owned()),
        "{removed:?}"
    );
    assert_eq!(lab.filters("one"), [""; 0]);
}

#[test]
fn filters_of_others_stay_even_by_the_same_name() {
    let lab = Lab::new("others");
    lab.attach("one");
    let attach_other = || {
        let mut ebpf = lab.load();
        let program = program(&mut ebpf).unwrap();
        let options = TcAttachOptions::Netlink(NlOptions::default());
        let id = program.attach_with_options("one", TcAttachType::Ingress, options);
        mem::forget(program.take_link(id.unwrap()).unwrap());
    };
    lab.namespace.run(attach_other).unwrap();
    lab.attach("one");
    assert_eq!(lab.filters("one").len(), 2);
    lab.inside(|copies| copies.detach(&["a"])).unwrap();
    assert_eq!(lab.filters("one").len(), 1);
}

#[test]
fn a_filter_goes_from_an_interface_that_is_no_port_any_more() {
    let lab = Lab::new("move");
    lab.attach("one");
    lab.attach("two");
    let two = lab.namespace.run(|| index("two")).unwrap();
    lab.inside(|copies| copies.filters.prune(&[two])).unwrap();
    assert_eq!(lab.filters("one"), [""; 0]);
    assert_eq!(lab.filters("two").len(), 1);
}

/// A namespace with the interfaces `one` and `two`.
struct Lab {
    namespace: Namespace,
    pins: Pins,
}

impl Lab {
    fn new(name: &str) -> Self {
        let directory = format!("/sys/fs/bpf/edgesteer-test-{}-{name}", std::process::id());
        let lab = Self {
            namespace: Namespace::create().expect("making network namespaces needs root"),
            pins: Pins::new(Path::new(&directory)),
        };
        fs::create_dir(directory).unwrap();
        lab.run("ip link add one type veth peer name far-one");
        lab.run("ip link add two type veth peer name far-two");
        lab
    }

    fn load(&self) -> Ebpf {
        let limits = Limits {
            flows: 1,
            filters: 1,
            rules: 1,
            sessions: 16,
            fragments: 64,
            vips: 1,
        };
        let cpus = aya::util::nr_cpus().unwrap() as u32;
        self.pins.load(&limits, cpus).unwrap()
    }

    /// What a process does that begins to make copies.
    fn attach(&self, interface: &str) {
        let mut ebpf = self.load();
        self.inside(|copies| copies.attach(&mut ebpf, "a", (interface, index(interface))))
            .unwrap();
    }

    /// Does something as on a kernel before 6.6.
    fn inside<T: Send>(&self, action: impl FnOnce(&Copies) -> T + Send) -> T {
        let copies = Copies {
            way: Way::Filter,
            ..self.pins.copies()
        };
        self.namespace.run(|| action(&copies)).unwrap()
    }

    /// The filters that are programs.
    fn filters(&self, interface: &str) -> Vec<String> {
        let shown = self.run(&format!("tc filter show dev {interface} ingress"));
        let programs = shown.lines().filter(|line| line.contains("direct-action"));
        programs.map(str::to_owned).collect()
    }

    fn run(&self, command: &str) -> String {
        let mut words = command.split_whitespace();
        let output = self
            .namespace
            .run(|| Command::new(words.next().unwrap()).args(words).output())
            .unwrap()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The namespace goes as well.
        let _ = self.namespace.run(|| self.pins.remove());
    }
}

fn index(interface: &str) -> u32 {
    let links = netlink::links().unwrap();
    let link = links.iter().find(|link| link.name == interface);
    link.unwrap().index
}
