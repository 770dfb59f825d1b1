//! Finding the other end of a veth, in whatever network namespace it is.

use std::{io, path::Path};

use dataplane_user::netlink::{self, Link, Namespace};

use super::ethtool::{Channels, Features};

/// The other end of a veth.
pub(super) struct FarEnd {
    /// The interface.
    pub(super) link: Link,
    /// Its offloads.
    pub(super) features: Features,
    /// Its queues.
    pub(super) channels: Channels,
    /// Whether frames leave it with the VLAN tag beside them: from a VLAN interface on it, or from a bridge.
    pub(super) tags_aside: bool,
    /// What to write before a command so that it runs there.
    prefix: String,
}

impl FarEnd {
    /// Looks for the other end of `near`; none if its namespace cannot be reached.
    pub(super) fn of(near: &Link) -> Option<Self> {
        let index = near.peer?;
        let Some(wanted) = near.peer_namespace else {
            return look(index, String::new()).ok();
        };
        let there = Namespace::all()
            .into_iter()
            .find(|namespace| matches!(namespace.id(), Ok(Some(id)) if id == wanted))?;
        let prefix = prefix(there.path());
        there.run(|| look(index, prefix)).ok()?.ok()
    }

    /// A command that runs where the interface is.
    pub(super) fn command(&self, command: &str) -> String {
        format!("{}{command}", self.prefix)
    }
}

fn look(index: u32, prefix: String) -> io::Result<FarEnd> {
    let links = netlink::links().map_err(io::Error::other)?;
    let found = links.iter().find(|link| link.index == index);
    let link = found.ok_or(io::ErrorKind::NotFound)?.clone();
    let tagging = |other: &Link| {
        other.kind.as_deref() == Some("vlan") && other.peer == Some(index)
            || other.kind.as_deref() == Some("bridge") && link.master == Some(other.index)
    };
    Ok(FarEnd {
        features: Features::of(&link.name)?,
        channels: Channels::of(&link.name)?,
        tags_aside: links.iter().any(tagging),
        link,
        prefix,
    })
}

fn prefix(namespace: &Path) -> String {
    match namespace.strip_prefix("/run/netns") {
        Ok(name) => format!("ip netns exec {} ", name.display()),
        Err(_) => format!("nsenter --net={} ", namespace.display()),
    }
}
