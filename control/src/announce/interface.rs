//! Addresses on an interface, for a routing daemon to redistribute.
//!
//! Ours are marked as such, and no others are touched.

use std::{net::IpAddr, time::Duration};

use dataplane_user::netlink::{
    Address, Error, Link, Present, addresses, links, remove_address, set_address,
};

use super::{Errors, Speaker, Wanted};

/// Marks our addresses; the kernel's own numbers are small ones. Newer versions of `ip address` show it as `proto 0x6d`.
pub(crate) const OURS: u8 = 0x6d;

pub(super) struct Interface {
    name: String,
    lifetime: Option<Duration>,
}

impl Interface {
    /// Without a lifetime, addresses stay when nobody renews them.
    pub(super) const fn new(name: String, lifetime: Option<Duration>) -> Self {
        Self { name, lifetime }
    }

    fn link<'a>(&self, links: &'a [Link]) -> Result<&'a Link, String> {
        let link = links.iter().find(|link| link.name == self.name);
        link.ok_or_else(|| format!("no interface {}: make it, or name another", self.name))
    }

    fn announce(&self, address: IpAddr, links: &[Link], present: &[Address]) -> Result<(), String> {
        let link = self.link(links)?;
        let same = |found: &&Address| found.address == address;
        let foreign = |found: &&Address| found.protocol != OURS;
        if let Some(other) = present.iter().filter(same).find(foreign) {
            let on = links.iter().find(|link| link.index == other.ifindex);
            let on = on.map_or("an interface", |link| &link.name);
            return Err(format!(
                "it is on {on} already, and not by edgesteer: remove it there (ip address del {address}/{} dev {on})",
                other.prefix
            ));
        }
        let here = present
            .iter()
            .filter(same)
            .any(|found| found.ifindex == link.index);
        let present = if here {
            Present::Renewed
        } else {
            Present::Refused
        };
        set_address(link.index, address, OURS, self.lifetime, present).map_err(words)?;
        match link.up {
            true => Ok(()),
            false => Err(format!("{0} is down: ip link set {0} up", self.name)),
        }
    }
}

impl Speaker for Interface {
    fn adopt(&mut self) -> Result<Vec<IpAddr>, String> {
        let present = addresses().map_err(words)?;
        let ours = present.into_iter().filter(|it| it.protocol == OURS);
        Ok(ours.map(|it| it.address).collect())
    }

    fn say(&mut self, wanted: &Wanted) -> Errors {
        let found = addresses().and_then(|addresses| Ok((addresses, links()?)));
        let (present, links) = match found {
            Ok(found) => found,
            Err(error) => {
                let all = wanted.keys().map(|address| (*address, error.to_string()));
                return all.collect();
            }
        };
        let mut errors = Errors::new();
        let announced = wanted.iter().filter(|(_, announced)| **announced);
        for (address, _) in announced {
            if let Err(error) = self.announce(*address, &links, &present) {
                errors.insert(*address, error);
            }
        }
        // Those that an earlier run set on another interface are on this one by now.
        let index = self.link(&links).map(|link| link.index).ok();
        let stale = present.iter().filter(|it| {
            let stays = wanted.get(&it.address) == Some(&true)
                && index.is_none_or(|it_is| it_is == it.ifindex);
            it.protocol == OURS && !stays
        });
        for it in stale {
            if let Err(error) = remove_address(it.ifindex, it.address) {
                errors.insert(it.address, error.to_string());
            }
        }
        errors
    }
}

fn words(error: Error) -> String {
    error.to_string()
}
