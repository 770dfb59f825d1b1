//! The traps of veth in native mode: most of them are at the end that is not ours.

use dataplane_user::netlink::XdpMode;

use super::{Finding, Subject, ethtool::Channels, far_end::FarEnd};

const CHECKSUMS: &[&str] = &[
    "tx-checksum-ipv4",
    "tx-checksum-ip-generic",
    "tx-checksum-ipv6",
    "tx-checksum-sctp",
];
const TAG_INSERTION: &[&str] = &["tx-vlan-hw-insert", "tx-vlan-stag-hw-insert"];

pub(super) fn findings(near: &Subject<'_>) -> Vec<Finding> {
    let Some(far) = FarEnd::of(near.link) else {
        return vec![unreachable(near)];
    };
    vec![
        napi(near, &far),
        checksums(near, &far),
        tags(near, &far),
        queues(near, &far),
        mtu(near, &far),
    ]
}

/// The namespace of the far end has no name here and no process that we can see.
fn unreachable(near: &Subject<'_>) -> Finding {
    Finding::warning(
        "veth-far-end",
        near.at(),
        "could not look at the far end: it is in a network namespace that cannot be reached from here",
        "run there, with NAME for the interface: ethtool -K NAME gro on tx off txvlan off"
            .to_owned(),
    )
}

/// A redirected frame is delivered to the NAPI of the far end, and there is none by default.
fn napi(near: &Subject<'_>, far: &FarEnd) -> Finding {
    const CHECK: &str = "veth-napi";
    let native = far.link.xdp.is_some_and(|xdp| xdp.mode == XdpMode::Native);
    if native || far.features.any(&["rx-gro"]) {
        return Finding::ok(CHECK, near.at(), "the far end receives redirected frames");
    }
    let name = &far.link.name;
    Finding::error(
        CHECK,
        near.at(),
        format_args!(
            "the far end {name} runs without NAPI: every frame redirected to it is dropped"
        ),
        far.command(&format!("ethtool -K {name} gro on")),
    )
}

/// A local sender leaves the checksum to a NIC that never comes.
fn checksums(near: &Subject<'_>, far: &FarEnd) -> Finding {
    const CHECK: &str = "veth-checksum";
    if !far.features.any(CHECKSUMS) {
        return Finding::ok(CHECK, near.at(), "the far end completes its checksums");
    }
    let name = &far.link.name;
    Finding::error(
        CHECK,
        near.at(),
        format_args!(
            "the far end {name} leaves checksums to hardware: TCP and UDP sent from there arrive damaged"
        ),
        far.command(&format!("ethtool -K {name} tx off")),
    )
}

/// A tag that travels beside the frame is not seen by XDP.
fn tags(near: &Subject<'_>, far: &FarEnd) -> Finding {
    const CHECK: &str = "veth-vlan";
    if !far.tags_aside || !far.features.any(TAG_INSERTION) {
        return Finding::ok(CHECK, near.at(), "VLAN tags are in the frame");
    }
    let name = &far.link.name;
    Finding::error(
        CHECK,
        near.at(),
        format_args!(
            "the far end {name} keeps VLAN tags beside the frame, where XDP cannot see them"
        ),
        far.command(&format!(
            "ethtool -K {name} txvlan off tx-vlan-stag-hw-insert off"
        )),
    )
}

/// The kernel refuses a program where the far end has more transmit queues than we can receive from.
fn queues(near: &Subject<'_>, far: &FarEnd) -> Finding {
    const CHECK: &str = "veth-queues";
    let interface = &near.link.name;
    let here = match Channels::of(interface) {
        Ok(channels) => channels,
        Err(error) => {
            let what = format_args!("could not read the queues: {error}");
            return Finding::warning(CHECK, near.at(), what, None);
        }
    };
    let needed = far.channels.transmit;
    if here.receive >= needed {
        let what = format_args!("receives on {}, is sent from {needed}", here.receive);
        return Finding::ok(CHECK, near.at(), what);
    }
    let name = &far.link.name;
    let cure = if here.max_receive >= needed {
        format!("ethtool -L {interface} rx {needed}")
    } else {
        far.command(&format!("ethtool -L {name} tx {}", here.receive))
    };
    Finding::error(
        CHECK,
        near.at(),
        format_args!(
            "{} receive queues, but the far end {name} sends from {needed}: native mode is refused",
            here.receive
        ),
        cure,
    )
}

/// A frame that is too long for the far end vanishes without a word.
fn mtu(near: &Subject<'_>, far: &FarEnd) -> Finding {
    const CHECK: &str = "veth-mtu";
    let (here, there) = (near.link.mtu, far.link.mtu);
    if here == there {
        return Finding::ok(CHECK, near.at(), format_args!("{here} at both ends"));
    }
    let name = &far.link.name;
    let cure = if here > there {
        far.command(&format!("ip link set dev {name} mtu {here}"))
    } else {
        format!("ip link set dev {} mtu {there}", near.link.name)
    };
    Finding::warning(
        CHECK,
        near.at(),
        format_args!("{here} here and {there} at the far end {name}: longer frames are lost"),
        cure,
    )
}
