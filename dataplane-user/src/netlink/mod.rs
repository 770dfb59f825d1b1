//! Links, addresses, neighbors and routes through rtnetlink, blocking, in the network namespace of the calling thread.
//!
//! Only the few attributes that steering needs are read, and unknown ones are skipped, so a newer kernel cannot break it.
//! Reading needs no privilege; changing addresses and neighbors needs `CAP_NET_ADMIN`.

mod address;
mod link;
mod message;
mod monitor;
mod namespace;
mod neighbor;
mod route;
mod socket;

pub use self::{
    address::{Address, Present, addresses, remove_address, set_address},
    link::{Link, Program, Xdp, XdpMode, links},
    monitor::{Changes, Monitor},
    namespace::Namespace,
    neighbor::{Neighbor, NeighborState, forget_neighbor, manage_neighbor, neighbor, neighbors},
    route::{Route, route},
};

/// Why the kernel did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process lacks the privilege.
    #[error("{doing}: not permitted; the process needs CAP_NET_ADMIN")]
    NotPermitted {
        /// What was asked.
        doing: &'static str,
    },
    /// The interface does not exist (any more).
    #[error("{doing}: no such interface")]
    NoSuchLink {
        /// What was asked.
        doing: &'static str,
    },
    /// This kernel cannot do it.
    #[error("{what} needs Linux {since} or newer")]
    Unsupported {
        /// The feature.
        what: &'static str,
        /// The first kernel that has it.
        since: &'static str,
    },
    /// The kernel refused; asking again later may help.
    #[error("{doing}: {source}{}", hint(.message))]
    Kernel {
        /// What was asked.
        doing: &'static str,
        /// The kernel's error.
        source: std::io::Error,
        /// The kernel's own words, when it had any.
        message: Option<String>,
    },
    /// The kernel's answer made no sense.
    #[error("{doing}: the kernel's answer is malformed")]
    Malformed {
        /// What was asked.
        doing: &'static str,
    },
}

impl Error {
    fn from_io(doing: &'static str, source: std::io::Error) -> Self {
        Self::with_message(doing, source, None)
    }

    fn with_message(doing: &'static str, source: std::io::Error, message: Option<String>) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM) => Self::NotPermitted { doing },
            Some(libc::ENODEV | libc::ENXIO) => Self::NoSuchLink { doing },
            _ => Self::Kernel {
                doing,
                source,
                message,
            },
        }
    }

    /// The kernel's error number, if this is a plain refusal.
    fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { source, .. } => source.raw_os_error(),
            Self::NotPermitted { .. } => Some(libc::EPERM),
            Self::NoSuchLink { .. } => Some(libc::ENODEV),
            Self::Unsupported { .. } | Self::Malformed { .. } => None,
        }
    }
}

fn hint(message: &Option<String>) -> String {
    message
        .as_ref()
        .map(|text| format!(" ({text})"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
