//! Carrying a plan out: the packet is changed and leaves, or an answer goes back.

use super::{Send, Steering, unsteered};
use crate::{
    encapsulate, icmp, mss,
    packet::Packet,
    rewrite::{self, Address},
    table::{Tables, flag},
    tunnel::Way,
    verdict::{Reason, Verdict},
    wire::{ethernet, transport::Tcp},
};

impl<T: Tables> Steering<'_, T> {
    /// Sends a packet out, changed as it has to be.
    #[inline(always)]
    pub(super) fn send<P: Packet>(&self, packet: &mut P, quoted: bool) -> Verdict {
        let send = self.notes.send.get();
        let (link, facts) = (&self.facts.link, self.facts);
        // With its tunnel, the packet is what is outside.
        let kept = T::TUNNELS
            && facts.tunnel.is_of_ue()
            && send.flags & u32::from(flag::ENCAPSULATED) != 0;
        let ip = if kept { &facts.tunnel.ip } else { &facts.ip };
        let routed = send.flags & u32::from(flag::ROUTE) != 0;
        if routed && ip.ttl <= 1 {
            return unsteered(self.port, Reason::TtlExpired);
        }
        if ip.length > send.mtu {
            // What goes to a UE behind a tunnel has no other way, which could take it in fragments.
            let tunnelled = T::TUNNELS && send.flags & Send::TUNNELLED != 0;
            if facts.ip.may_fragment && !tunnelled {
                return unsteered(self.port, Reason::NeedsFragmentation);
            }
            let around = ip.length - facts.ip.length;
            return self.too_long(packet, send.mtu.saturating_sub(around));
        }
        if T::TUNNELS && facts.tcp_flags & Tcp::SYN != 0 && self.port.clamps_mss() {
            self.clamp_mss(packet, &send);
        }
        let exit = &self.notes.exit;
        let new_link = rewrite::Link {
            destination: send.destination,
            source: send.source,
            tags: send.tags,
            ethertype: match (T::TUNNELS, ip.v6) {
                (false, _) => link.ethertype,
                (true, _) if send.flags & Send::TUNNELLED != 0 => exit.ethertype(),
                (true, false) => ethernet::IPV4,
                (true, true) => ethernet::IPV6,
            },
        };
        let strip = if T::TUNNELS { ip.offset } else { link.len };
        let changed = (send.flags & u32::from(flag::NAT) == 0
            || self.translate(packet, &send, quoted))
            && (!routed || rewrite::hop(packet, ip))
            && if T::TUNNELS && send.flags & Send::TUNNELLED != 0 {
                encapsulate::into(packet, strip.into(), &new_link, ip, exit)
            } else {
                rewrite::link(packet, strip.into(), &new_link)
            };
        if changed {
            send.verdict
        } else {
            Verdict::discard(Reason::NoHeadroom)
        }
    }

    /// Replaces the address that the application has in place of the service.
    #[inline(always)]
    fn translate<P: Packet>(&self, packet: &mut P, send: &Send, quoted: bool) -> bool {
        let which = if send.verdict.reason() == Reason::Replied as u8 {
            Address::Source
        } else {
            Address::Destination
        };
        if quoted {
            self.translate_error(packet, which, send.address, send.port as u16)
        } else {
            let port = send.port as u16;
            rewrite::address(packet, &self.facts.ip, which, send.address, port)
        }
    }

    /// Changes an address in the packet that an ICMP error quotes, where it is at the other end, and
    /// in the error itself, unless that comes from a router on the way.
    #[inline(never)]
    fn translate_error<P: Packet>(
        &self,
        packet: &mut P,
        which: Address,
        new: [u64; 2],
        port: u16,
    ) -> bool {
        let key = &self.facts.quote.key;
        let (own, old, other) = match which {
            Address::Source => (self.facts.key.source, key.destination, Address::Destination),
            Address::Destination => (self.facts.key.destination, key.source, Address::Source),
        };
        (own != old || rewrite::address(packet, &self.facts.ip, which, new, 0))
            && rewrite::quoted_address(packet, self.facts, other, new, port)
    }

    /// Lowers the MSS of a TCP connection that is in a tunnel, on one side of this host, to what fits on
    /// both. What keeps its tunnel is not looked into.
    #[inline(always)]
    fn clamp_mss<P: Packet>(&self, packet: &mut P, send: &Send) {
        let came = self.facts.tunnel.way != Way::None;
        let in_own = self.facts.tunnel.is_of_ue();
        let kept = in_own && send.flags & u32::from(flag::ENCAPSULATED) != 0;
        if !kept && (came || send.flags & Send::TUNNELLED != 0) {
            let before = self.port.mtu.saturating_sub(self.facts.overhead());
            mss::lower(packet, &self.facts.ip, before.min(send.mtu));
        }
    }

    /// Answers a packet that is too long for where it should go, at most once a jiffy and CPU. Who is behind
    /// a tunnel is answered by it.
    #[inline(never)]
    fn too_long<P: Packet>(&self, packet: &mut P, mtu: u32) -> Verdict {
        let untold = Verdict::discard(Reason::MtuExceededUntold);
        let came = T::TUNNELS && self.facts.tunnel.way != Way::None;
        if came && !self.tunnel_back() {
            return unsteered(self.port, Reason::NeedsFragmentation);
        }
        if !icmp::may_answer(self.facts) {
            return untold;
        }
        let Some(told) = self.tables.told() else {
            return untold;
        };
        let now = self.tables.now();
        if told.get() == now {
            return untold;
        }
        if !self.tables.read_only() {
            told.set(now);
        }
        if icmp::too_long(packet, self.facts, mtu) && (!came || self.wrap(packet)) {
            Verdict::reflect(Reason::MtuExceeded)
        } else {
            untold
        }
    }

    /// Answers an echo request. Other packets go their original path.
    #[inline(never)]
    pub(super) fn echo<P: Packet>(&self, packet: &mut P) -> Verdict {
        let facts = self.facts;
        let came = T::TUNNELS && facts.tunnel.way != Way::None;
        let asks = !facts.ip.is_fragment() && icmp::is_echo_request(packet, facts);
        if !asks || came && !self.tunnel_back() {
            return unsteered(self.port, Reason::NoRule);
        }
        let strip = if T::TUNNELS {
            facts.ip.offset
        } else {
            facts.link.len
        };
        let link = icmp::turned(facts);
        let exit = &self.notes.exit;
        let answered = icmp::echo_reply(packet, facts)
            && if came {
                let link = rewrite::Link {
                    ethertype: exit.ethertype(),
                    ..link
                };
                encapsulate::into(packet, strip.into(), &link, &facts.ip, exit)
            } else {
                rewrite::link(packet, strip.into(), &link)
            };
        if answered {
            Verdict::reflect(Reason::VipEcho)
        } else {
            Verdict::discard(Reason::NoHeadroom)
        }
    }

    /// Puts an answer into the tunnel that is noted.
    fn wrap<P: Packet>(&self, packet: &mut P) -> bool {
        let exit = &self.notes.exit;
        let link = rewrite::Link {
            ethertype: exit.ethertype(),
            ..icmp::turned(self.facts)
        };
        let answer = icmp::answer(self.facts);
        encapsulate::into(packet, answer.offset.into(), &link, &answer, exit)
    }
}
