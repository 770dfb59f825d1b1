//! A mobile network around the MEC host, with real ends of GTP-U on both sides of it: Osmocom's
//! `sgsnemu` for each base station and its UE, `osmo-ggsn` as the gateway. All in user space.
//!
//! ```text
//!  UE ══ ue0 [ RAN ] n3 ──── access0 [ MEC host ] core0 ──── n3 [ core ] n6 ──── network
//!            192.0.2.1..3                                    192.0.2.10          203.0.113.9
//! ```
//!
//! They speak GTPv1-U with sequence numbers (flags 0x32), UDP port 2152 both as source and as
//! destination, over IPv4. They take packets without sequence numbers as well, but refuse any
//! extension header, so this is an S1-U or Gn interface and not N3. Error Indications are real.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{Lab, Namespace, Server, applications, forward, program::Program, unique_name};

/// How long the gateway's console may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where `osmo-ggsn` answers questions, in the namespace of the core.
const CONSOLE: &str = "127.0.0.1:4260";
/// What fits into a frame of 1500 octets behind IPv4, UDP and GTP-U with sequence number.
const MTU: u16 = 1500 - 20 - 8 - 12;

/// The mobile network. Dropping it removes everything.
#[derive(Debug)]
pub struct Mobile {
    gateway: Program,
    directory: PathBuf,
    keep: bool,
    /// Two with an IPv4 address and one with an IPv6 address, each at a base station of its own.
    /// Their downlink TEIDs are the same number, and only the first one's is its uplink TEID too.
    pub ues: [Ue; 3],
    /// The base stations, all behind the interface `n3`.
    pub ran: Namespace,
    /// The MEC host, with the ports `access0`, `core0`, `app0` and `app1`.
    pub host: Namespace,
    /// The two applications, as in [`Lab`].
    pub apps: [Namespace; 2],
    /// The gateway: GTP-U on the interface `n3`, plain packets on `n6`.
    pub core: Namespace,
    /// The data network, with the service of [`Lab`].
    pub network: Namespace,
}

/// A UE with its session.
#[derive(Debug)]
pub struct Ue {
    emulator: Program,
    /// The UE itself: what it sends on `ue0` goes through the tunnel.
    pub namespace: Namespace,
    /// Its address, given by the gateway.
    pub address: IpAddr,
    /// Its base station's end of the tunnel.
    pub station: Ipv4Addr,
    /// TEID of packets to the gateway.
    pub uplink: u32,
    /// TEID of packets to the base station.
    pub downlink: u32,
}

impl Mobile {
    /// The base stations of the UEs.
    pub const STATIONS: [Ipv4Addr; 3] = [
        Ipv4Addr::new(192, 0, 2, 1),
        Ipv4Addr::new(192, 0, 2, 2),
        Ipv4Addr::new(192, 0, 2, 3),
    ];
    /// The gateway's end of all tunnels.
    pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

    /// Lays the cables, lets `attach` make the MEC host pass packets between `access0` and `core0`,
    /// and starts gateway and UEs, whose signalling takes the same way as their traffic.
    pub fn start<T>(attach: impl FnOnce(&Namespace) -> Result<T>) -> Result<(Self, T)> {
        Self::named(&unique_name()?, attach)
    }

    /// The same with namespaces that are called `PREFIX-ue-0` and so on; replaces one of the same name.
    pub fn named<T>(
        prefix: &str,
        attach: impl FnOnce(&Namespace) -> Result<T>,
    ) -> Result<(Self, T)> {
        let namespace = |name: &str| Namespace::create(&format!("{prefix}-{name}"));
        let [ran, host, core, network] = ["ran", "host", "core", "network"].map(namespace);
        let (ran, host, core, network) = (ran?, host?, core?, network?);
        let apps = [namespace("app-a")?, namespace("app-b")?];
        connect(&ran, &host, &core, &network).context("cabling of the mobile network")?;
        applications::connect(&host, &apps)?;
        let attached = attach(&host)?;

        let directory = PathBuf::from(format!("/run/{prefix}"));
        fs::create_dir_all(&directory)?;
        let gateway = gateway(&core, &directory)?;
        let ue = |index: usize| {
            let namespace = namespace(&format!("ue-{index}"))?;
            Ue::start(index, namespace, &ran, &core, &directory)
        };
        let ues = [ue(0)?, ue(1)?, ue(2)?];
        let mobile = Self {
            gateway,
            directory,
            keep: false,
            ues,
            ran,
            host,
            apps,
            core,
            network,
        };
        Ok((mobile, attached))
    }

    /// Leaves the mobile network in place when the value is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
        self.gateway.keep();
        for ue in &mut self.ues {
            ue.emulator.keep();
            ue.namespace.keep();
        }
        let [a, b] = &mut self.apps;
        for namespace in [
            &mut self.ran,
            &mut self.host,
            &mut self.core,
            &mut self.network,
            a,
            b,
        ] {
            namespace.keep();
        }
    }

    /// Starts the servers `network`, `app-a` and `app-b`, as [`Lab::serve`] does.
    pub fn serve(&self) -> Result<[Server; 3]> {
        applications::serve(&self.network, &self.apps)
    }

    /// Ends a session as a UE does that is switched off: base station and gateway agree on it in the
    /// control plane, and nothing of it is to be seen in the user plane.
    pub fn detach(&mut self, index: usize) -> Result<()> {
        let Ue {
            emulator, station, ..
        } = &mut self.ues[index];
        emulator.terminate()?;
        emulator.wait(|| tunnel(&self.core, *station).is_err().then_some(()))?;
        // It would linger for another 20 seconds.
        emulator.stop();
        Ok(())
    }

    /// Makes the gateway forget all sessions without telling anyone: from now on it answers what
    /// the UEs send with Error Indications.
    pub fn restart_gateway(&mut self) -> Result<()> {
        self.gateway.stop();
        self.gateway = gateway(&self.core, &self.directory)?;
        Ok(())
    }
}

impl Drop for Mobile {
    fn drop(&mut self) {
        if !self.keep {
            // What they write on their way out is of no interest.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

impl Ue {
    fn start(
        index: usize,
        namespace: Namespace,
        ran: &Namespace,
        core: &Namespace,
        directory: &Path,
    ) -> Result<Self> {
        let station = Mobile::STATIONS[index];
        let (apn, service) = match index {
            2 => ("inet6", Lab::SERVICE6),
            _ => ("inet", Lab::SERVICE),
        };
        let name = format!("ue-{index}");
        let state = directory.join(&name);
        fs::create_dir(&state)?;
        let mut command = ran.command("sgsnemu");
        command.args(["--createif", "--defaultroute", "--tun-device", "ue0"]);
        command.args(["--netns", namespace.name(), "--apn", apn]);
        command.args(["--pdp-type", if service.is_ipv6() { "v6" } else { "v4" }]);
        command.args(["--imsi", &format!("00101000000000{index}")]);
        command.args(["--listen", &station.to_string()]);
        command.args(["--remote", &Mobile::GATEWAY.to_string()]);
        command.arg("--statedir").arg(&state);
        command.arg("--pidfile").arg(state.join("pid"));
        let emulator = Program::start(command, directory, &name)?;
        let address = emulator.wait(|| source(&namespace, service))?;
        namespace.ip(&format!("link set ue0 mtu {MTU}"))?;
        let (uplink, downlink) = tunnel(core, station)?;
        Ok(Self {
            emulator,
            namespace,
            address,
            station,
            uplink,
            downlink,
        })
    }
}

fn connect(ran: &Namespace, host: &Namespace, core: &Namespace, network: &Namespace) -> Result<()> {
    for (port, namespace) in [("access0", ran), ("core0", core)] {
        host.link(port, (namespace, "n3"))?;
        namespace.prepare_far_end("n3")?;
    }
    core.link("n6", (network, "n6"))?;
    for station in Mobile::STATIONS {
        ran.ip(&format!("addr add {station}/24 dev n3"))?;
    }
    core.ip(&format!(
        "addr add {}/24 dev n3\n\
         addr add 198.51.100.1/24 dev n6\n\
         addr add 2001:db8:51::1/64 dev n6 nodad\n\
         route add default via 198.51.100.2\n\
         route add default via 2001:db8:51::2",
        Mobile::GATEWAY
    ))?;
    network.ip("addr add 203.0.113.9/32 dev lo\n\
         addr add 2001:db8:203::9/128 dev lo nodad\n\
         addr add 198.51.100.2/24 dev n6\n\
         addr add 2001:db8:51::2/64 dev n6 nodad\n\
         route add default via 198.51.100.1\n\
         route add default via 2001:db8:51::1")?;
    forward(core)
}

fn gateway(core: &Namespace, directory: &Path) -> Result<Program> {
    let configuration = directory.join("osmo-ggsn.cfg");
    fs::write(
        &configuration,
        format!(
            "log stderr
 logging filter all 1
 logging color 0
ggsn edgesteer
 gtp state-dir {}
 gtp bind-ip {}
 apn inet
  gtpu-mode tun
  tun-device tun4
  type-support v4
  ip prefix dynamic 10.45.0.0/24
  ip ifconfig 10.45.0.0/24
  no shutdown
 apn inet6
  gtpu-mode tun
  tun-device tun6
  type-support v6
  ipv6 prefix dynamic 2001:db8:45::/56
  ipv6 ifconfig 2001:db8:45::/56
  no shutdown
 default-apn inet
 no shutdown ggsn
",
            directory.display(),
            Mobile::GATEWAY,
        ),
    )?;
    let mut command = core.command("osmo-ggsn");
    command.arg("--config-file").arg(configuration);
    let program = Program::start(command, directory, "osmo-ggsn")?;
    program.wait(|| core.enter(|| TcpStream::connect(CONSOLE).ok()))?;
    core.ip(&format!(
        "link set tun4 mtu {MTU}\n\
         link set tun6 mtu {MTU}"
    ))?;
    Ok(program)
}

/// The address that the kernel sends from to this destination, once it has a route.
fn source(namespace: &Namespace, destination: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match destination {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = namespace.enter(|| {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((destination, Lab::PORT)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    });
    source.filter(|address| !matches!(address, IpAddr::V6(it) if it.is_unicast_link_local()))
}

/// The uplink and the downlink TEID of the only session of a base station, as the gateway has them.
fn tunnel(core: &Namespace, station: Ipv4Addr) -> Result<(u32, u32)> {
    let answer = core.enter(|| ask("show pdp-context ggsn edgesteer"));
    let answer = answer.context("osmo-ggsn does not answer")?;
    let teids = answer.lines().find_map(|line| {
        let (ours, theirs) = line.trim().strip_prefix("Data: ")?.split_once(" <-> ")?;
        let downlink = theirs.strip_prefix(&format!("{station}:"))?;
        let (_, uplink) = ours.split_once(':')?;
        let number = |teid| u32::from_str_radix(teid, 16).ok();
        Some((number(uplink)?, number(downlink)?))
    });
    teids.with_context(|| format!("osmo-ggsn has no session with {station}:\n{answer}"))
}

/// What the gateway's console says to a command.
fn ask(command: &str) -> io::Result<String> {
    const PROMPT: &str = "OsmoGGSN> ";
    let mut console = TcpStream::connect(CONSOLE)?;
    console.set_read_timeout(Some(PATIENCE))?;
    write!(console, "{command}\r\n")?;
    let (mut answer, mut part) = (String::new(), [0; 4096]);
    // One prompt before the command, and one behind its answer.
    while answer.matches(PROMPT).count() < 2 {
        let length = console.read(&mut part)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer += &String::from_utf8_lossy(&part[..length]);
    }
    Ok(answer)
}
