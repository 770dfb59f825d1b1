//! What any port can suffer from.

use std::fs;

use dataplane_user::netlink::{Link, Program, Xdp, XdpMode};

use super::{Finding, Plan, Port, Subject, ethtool::Features, offload, veth};

/// The names of our programs, as loaded.
const PROGRAMS: [&str; 2] = ["steer", "steer_mobile"];
/// Beyond this a frame needs several buffers, which not every driver gives to XDP.
const ONE_BUFFER: u32 = 3498;

pub(super) fn findings(port: &Port, plan: &Plan, links: &[Link]) -> Vec<Finding> {
    let found = links.iter().find(|link| link.name == port.interface);
    let Some(link) = found else {
        return vec![missing(port)];
    };
    let subject = Subject { port, link };
    let mut findings = vec![state(&subject), mode(&subject)];
    if !link.ethernet {
        return findings;
    }
    findings.push(program(&subject));
    findings.extend(mtu(&subject));
    findings.extend(pair(&subject, plan, links));
    findings.extend(reverse_path(&subject));
    match Features::of(&link.name) {
        Ok(features) => findings.extend(offload::findings(&subject, &features)),
        Err(error) => findings.push(Finding::warning(
            "offloads",
            subject.at(),
            format_args!("could not read the offloads: {error}"),
            None,
        )),
    }
    if link.kind.as_deref() == Some("veth") && !runs_generic(&subject) {
        findings.extend(veth::findings(&subject));
    }
    findings
}

fn missing(port: &Port) -> Finding {
    Finding::error(
        "interface",
        port.at(),
        "does not exist (in this network namespace)",
        format!(
            "create {}, or correct `interface` of the port; `ip link` lists what there is",
            port.interface
        ),
    )
}

fn state(port: &Subject<'_>) -> Finding {
    const CHECK: &str = "interface";
    let name = &port.link.name;
    if !port.link.up {
        let cure = format!("ip link set dev {name} up");
        return Finding::error(CHECK, port.at(), "is switched off", cure);
    }
    if !port.link.carrier {
        let cure = "check the cable; of a veth, switch the far end on".to_owned();
        return Finding::warning(CHECK, port.at(), "has no carrier", cure);
    }
    Finding::ok(CHECK, port.at(), "is up")
}

/// Whether the driver can run the program itself.
fn mode(port: &Subject<'_>) -> Finding {
    const CHECK: &str = "native-mode";
    let what = describe(port.link);
    if native_capable(port.link) {
        return Finding::ok(CHECK, port.at(), format_args!("possible on {what}"));
    }
    if !port.link.ethernet {
        return Finding::error(
            CHECK,
            port.at(),
            format_args!("{what} does not carry Ethernet frames"),
            "use an Ethernet interface; of a tun device, a tap device".to_owned(),
        );
    }
    let below = "use the interface below it (tags are understood)";
    if port.port.allow_generic {
        return Finding::warning(
            CHECK,
            port.at(),
            format_args!("{what} runs XDP only in the slow generic mode"),
            below.to_owned(),
        );
    }
    Finding::error(
        CHECK,
        port.at(),
        format_args!("{what} cannot run XDP natively"),
        format!("{below}, or set `allow_generic = true` on the port"),
    )
}

/// NICs are taken at their word when the program is attached; of the virtual kinds these are known to work.
fn native_capable(link: &Link) -> bool {
    link.ethernet && matches!(link.kind.as_deref(), None | Some("veth" | "tun" | "bond"))
}

pub(super) fn runs_generic(port: &Subject<'_>) -> bool {
    match port.link.xdp {
        Some(xdp) => xdp.mode == XdpMode::Generic,
        None => !native_capable(port.link),
    }
}

fn describe(link: &Link) -> String {
    match link.kind.as_deref() {
        None if !link.ethernet => "this interface".to_owned(),
        None => "this NIC".to_owned(),
        Some("tun") if link.ethernet => "a tap device".to_owned(),
        Some(kind) => format!("a {kind} device"),
    }
}

/// Another program on the port keeps ours out.
fn program(port: &Subject<'_>) -> Finding {
    const CHECK: &str = "xdp-program";
    let Some(xdp) = port.link.xdp else {
        return Finding::ok(CHECK, port.at(), "no other program is attached");
    };
    let Some(program) = xdp.program() else {
        return Finding::warning(
            CHECK,
            port.at(),
            format_args!(
                "program {} is attached; whose it is takes CAP_SYS_ADMIN to tell",
                xdp.program
            ),
            format!("run as root, or: bpftool prog show id {}", xdp.program),
        );
    };
    if is_ours(&program) {
        return Finding::ok(CHECK, port.at(), format_args!("ours, {}", mode_name(xdp)));
    }
    let name = &port.link.name;
    Finding::error(
        CHECK,
        port.at(),
        format_args!(
            "another program is attached: id {}, name {}, tag {:016x}, {}",
            xdp.program,
            program.name,
            program.tag,
            mode_name(xdp)
        ),
        format!(
            "stop its owner, or: ip link set dev {name} {} off (if that is refused: bpftool link)",
            option(xdp)
        ),
    )
}

pub(super) fn is_ours(program: &Program) -> bool {
    PROGRAMS.contains(&&*program.name)
}

const fn mode_name(xdp: Xdp) -> &'static str {
    match xdp.mode {
        XdpMode::Native => "native",
        XdpMode::Generic => "generic",
        XdpMode::Offload => "offloaded",
    }
}

const fn option(xdp: Xdp) -> &'static str {
    match xdp.mode {
        XdpMode::Native => "xdpdrv",
        XdpMode::Generic => "xdpgeneric",
        XdpMode::Offload => "xdpoffload",
    }
}

fn mtu(port: &Subject<'_>) -> Option<Finding> {
    let mtu = port.link.mtu;
    // A veth takes any: the program accepts frames in several buffers.
    if mtu <= ONE_BUFFER || port.link.kind.as_deref() == Some("veth") {
        return None;
    }
    Some(Finding::warning(
        "mtu",
        port.at(),
        format_args!("{mtu} needs several buffers a frame; many drivers then refuse XDP"),
        format!("ip link set dev {} mtu {ONE_BUFFER}", port.link.name),
    ))
}

/// The two ends of a wire should carry the same.
fn pair(port: &Subject<'_>, plan: &Plan, links: &[Link]) -> Option<Finding> {
    const CHECK: &str = "pair-mtu";
    let name = port.port.pair.as_ref()?;
    let other = plan.ports.iter().find(|other| other.name == *name)?;
    let other = links.iter().find(|link| link.name == other.interface)?;
    let (here, there) = (port.link.mtu, other.mtu);
    if here <= there {
        return Some(Finding::ok(
            CHECK,
            port.at(),
            format_args!("{here} fits into {there}"),
        ));
    }
    Some(Finding::warning(
        CHECK,
        port.at(),
        format_args!("packets of up to {here} bytes do not fit through {name} with {there}"),
        format!("ip link set dev {} mtu {here}", other.name),
    ))
}

/// Strict filtering drops what comes in by another way than answers would go out: not what is steered,
/// but what the host routes.
fn reverse_path(port: &Subject<'_>) -> Option<Finding> {
    const CHECK: &str = "reverse-path";
    if !port.port.routed {
        return None;
    }
    let name = &port.link.name;
    let value = |interface: &str| -> Option<u8> {
        let path = format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter");
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    if value("all")?.max(value(name)?) != 1 {
        return Some(Finding::ok(CHECK, port.at(), "not strict"));
    }
    Some(Finding::warning(
        CHECK,
        port.at(),
        "strict reverse path filtering drops packets whose answers would leave by another interface",
        format!("sysctl -w net/ipv4/conf/{name}/rp_filter=2"),
    ))
}
