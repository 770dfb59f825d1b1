//! Network interfaces.

use super::{
    Error,
    message::{Message, attributes, i32_at, text, u16_at, u32_at},
    socket::dump,
};

/// Length of `struct ifinfomsg`.
const HEADER: usize = 16;
/// `IFLA_XDP_ATTACHED`, `IFLA_XDP_PROG_ID` and its successors by mode.
const XDP_ATTACHED: u16 = 2;
const XDP_PROGRAM: u16 = 4;
const XDP_DRIVER_PROGRAM: u16 = 5;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The interface index.
    pub index: u32,
    /// The name.
    pub name: String,
    /// The Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// Whether it carries Ethernet frames (not so loopback, tun and most tunnels).
    pub ethernet: bool,
    /// The largest packet it carries, without the Ethernet header.
    pub mtu: u32,
    /// The largest MTU that can be set; 0 if the driver does not say.
    pub max_mtu: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it has a signal.
    pub carrier: bool,
    /// The kind of a virtual interface, as `ip -details link` says it: `veth`, `bridge`, `tun`; none for a NIC.
    pub kind: Option<String>,
    /// The index of the other end of a veth or of the interface below a VLAN.
    pub peer: Option<u32>,
    /// The namespace the peer is in, by this namespace's number for it; none when it is in this one.
    pub peer_namespace: Option<i32>,
    /// The index of the bridge, bond or VRF that owns it.
    pub master: Option<u32>,
    /// Number of receive queues made with the interface (those in use: [`links`] does not say).
    pub rx_queues: u32,
    /// Number of transmit queues made with the interface.
    pub tx_queues: u32,
    /// The attached XDP program.
    pub xdp: Option<Xdp>,
}

/// An attached XDP program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xdp {
    /// Its id.
    pub program: u32,
    /// Where it runs.
    pub mode: XdpMode,
}

/// Where an XDP program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the network stack, after the socket buffer was made.
    Generic,
    /// In the NIC.
    Offload,
}

/// Who a loaded BPF program is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The name its author gave it, cut to 15 characters by the kernel.
    pub name: String,
    /// The hash of its instructions.
    pub tag: u64,
}

impl Xdp {
    /// Who the program is; none without `CAP_SYS_ADMIN`.
    pub fn program(&self) -> Option<Program> {
        let info = aya::programs::loaded_programs()
            .filter_map(Result::ok)
            .find(|info| info.id() == self.program)?;
        Some(Program {
            name: info.name_as_str().unwrap_or_default().to_owned(),
            tag: info.tag(),
        })
    }
}

/// All interfaces, by index.
pub fn links() -> Result<Vec<Link>, Error> {
    let mut links = dump("list interfaces", libc::RTM_GETLINK, &[0; HEADER], read)?;
    links.sort_unstable_by_key(|link| link.index);
    Ok(links)
}

fn read(message: Message<'_>) -> Option<Link> {
    if message.kind != libc::RTM_NEWLINK {
        return None;
    }
    let flags = u32_at(message.payload, 8)?;
    let hardware = u16_at(message.payload, 2)?;
    let mut link = Link {
        index: u32_at(message.payload, 4)?,
        name: String::new(),
        mac: None,
        ethernet: hardware == libc::ARPHRD_ETHER,
        mtu: 0,
        max_mtu: 0,
        up: flags & libc::IFF_UP as u32 != 0,
        carrier: flags & libc::IFF_LOWER_UP as u32 != 0,
        kind: None,
        peer: None,
        peer_namespace: None,
        master: None,
        rx_queues: 1,
        tx_queues: 1,
        xdp: None,
    };
    for (kind, value) in message.attributes(HEADER) {
        let number = u32_at(value, 0);
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_ADDRESS if link.ethernet => link.mac = value.try_into().ok(),
            libc::IFLA_MTU => link.mtu = number?,
            libc::IFLA_MAX_MTU => link.max_mtu = number?,
            libc::IFLA_LINK => link.peer = number.filter(|index| *index != 0),
            libc::IFLA_LINK_NETNSID => link.peer_namespace = i32_at(value, 0),
            libc::IFLA_MASTER => link.master = number,
            libc::IFLA_NUM_RX_QUEUES => link.rx_queues = number?,
            libc::IFLA_NUM_TX_QUEUES => link.tx_queues = number?,
            libc::IFLA_LINKINFO => {
                link.kind = attributes(value)
                    .find(|(kind, _)| *kind == libc::IFLA_INFO_KIND)
                    .map(|(_, value)| text(value));
            }
            libc::IFLA_XDP => link.xdp = xdp(value),
            _ => {}
        }
    }
    Some(link)
}

fn xdp(value: &[u8]) -> Option<Xdp> {
    let find = |wanted: u16| attributes(value).find(|(kind, _)| *kind == wanted);
    let (mode, program) = match *find(XDP_ATTACHED)?.1.first()? {
        1 => (XdpMode::Native, XDP_PROGRAM),
        2 => (XdpMode::Generic, XDP_PROGRAM),
        3 => (XdpMode::Offload, XDP_PROGRAM),
        // Several modes at once: the driver's is the one in our way.
        4 => (XdpMode::Native, XDP_DRIVER_PROGRAM),
        _ => return None,
    };
    Some(Xdp {
        program: u32_at(find(program)?.1, 0)?,
        mode,
    })
}
