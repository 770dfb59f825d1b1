//! Ports, and where the endpoints of tunnels are.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use crate::{classify::within, word::Word};

/// A configured interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Port {
    /// MAC address, in the lower 48 bits.
    pub mac: u64,
    /// Largest L3 packet that may leave here.
    pub mtu: u32,
    /// Place among the ports.
    pub slot: u16,
    /// Slot of the other end of the wire, [`DOWN`](super::DOWN) while that takes no packets, or [`NO_PORT`](super::NO_PORT) when
    /// the kernel routes what is not steered.
    pub pair: u16,
    /// Address space of the UEs behind it.
    pub zone: u16,
    /// A [`Role`].
    pub role: u8,
    /// Any of [`port`].
    pub flags: u8,
    /// Index of the interface.
    pub ifindex: u32,
}

/// A port that packets may look at while it is changed.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(transparent)]
pub struct SharedPort([Word; 3]);

impl SharedPort {
    /// The port.
    #[must_use]
    pub fn get(&self) -> Port {
        let [first, second, third] = &self.0;
        transmute!([first.get(), second.get(), third.get()])
    }

    /// Changes it, word by word.
    pub fn set(&self, port: Port) {
        let words: [u64; 3] = transmute!(port);
        for (cell, word) in self.0.iter().zip(words) {
            cell.set(word);
        }
    }
}

/// What a port faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// UEs or the radio access network.
    Access = 0,
    /// The UPF or SGW, the data network: the other end of the same wire.
    Core = 1,
    /// A local application.
    App = 2,
    /// Another MEC host.
    Peer = 3,
}

/// What [`Port::flags`] can hold.
pub mod port {
    /// The entry is in use.
    pub const PRESENT: u8 = 1;
    /// GTP-U between endpoints of the RAN and the core is looked into.
    pub const GTPU: u8 = 2;
    /// TCP connections that begin with packets from here, in tunnels or into them, get no larger MSS than
    /// fits.
    pub const MSS_CLAMP: u8 = 4;
}

/// Where the endpoints of tunnels with addresses in a range are.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Endpoints {
    /// The first address.
    pub first: [u64; 2],
    /// The last.
    pub last: [u64; 2],
    /// A [`Side`]; 0 ends the list.
    pub side: u64,
}

/// A side of N3 or S1-U.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Side {
    /// Neither: tunnels of these addresses are nobody's.
    None = 0,
    /// eNB or gNB.
    Ran = 1,
    /// SGW or UPF.
    Core = 2,
}

/// Which side the endpoints with `address` are on.
#[must_use]
pub fn side(endpoints: &[Endpoints], address: [u64; 2]) -> Side {
    for range in endpoints {
        if range.side == Side::None as u64 {
            break;
        }
        if within(address, &[range.first, range.last]) {
            return if range.side == Side::Ran as u64 {
                Side::Ran
            } else {
                Side::Core
            };
        }
    }
    Side::None
}

impl Port {
    /// Whether the entry is in use.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        self.flags & port::PRESENT != 0
    }

    /// Whether GTP-U is looked into.
    #[must_use]
    pub const fn sees_gtpu(&self) -> bool {
        self.flags & port::GTPU != 0
    }

    /// Whether the MSS of TCP connections in tunnels is lowered.
    #[must_use]
    pub const fn clamps_mss(&self) -> bool {
        self.flags & port::MSS_CLAMP != 0
    }

    /// Whether packets from here are upstream: from a UE.
    #[must_use]
    pub const fn is_upstream(&self) -> bool {
        self.role == Role::Access as u8 || self.role == Role::Peer as u8
    }

    /// Whether the core network sends here.
    #[must_use]
    pub const fn is_core(&self) -> bool {
        self.role == Role::Core as u8
    }

    /// Whether an application sends here.
    #[must_use]
    pub const fn is_app(&self) -> bool {
        self.role == Role::App as u8
    }
}
