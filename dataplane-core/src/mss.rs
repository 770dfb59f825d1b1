//! Lowering the largest segment that TCP asks for (RFC 9293, 3.7.1) to what fits into a tunnel.

use zerocopy::network_endian::U16;

use crate::{
    checksum::Delta,
    packet::Packet,
    parse::Ip,
    wire::{
        ipv4::Ipv4,
        ipv6::Ipv6,
        transport::{Tcp, option},
    },
};

/// Options looked at at most. The one that is looked for comes first or second.
const OPTIONS: usize = 8;

/// Lowers the MSS option of a TCP segment that opens a connection, so that packets of `mtu` octets at most
/// come. RFC 6691: of headers, those without options are left room for.
#[inline(never)]
pub(crate) fn lower<P: Packet>(packet: &mut P, ip: &Ip, mtu: u32) {
    let network = if ip.v6 { Ipv6::LEN } else { Ipv4::LEN };
    let most = mtu.saturating_sub((network + Tcp::LEN) as u32) as u16;
    let tcp = usize::from(ip.payload);
    let Some(header) = packet.get::<Tcp>(tcp) else {
        return;
    };
    // Options that are cut short by a fragment are in the next.
    let end = ip.end().min(tcp + header.header_len());
    let mut at = tcp + Tcp::LEN;
    for _ in 0..OPTIONS {
        if at + option::MSS_LEN > end {
            return;
        }
        let Some(&[kind, length]) = packet.get::<[u8; 2]>(at) else {
            return;
        };
        let length = match (kind, length) {
            (option::END, _) => return,
            (option::NOP, _) => 1,
            (option::MSS, 4) => {
                replace(packet, tcp, at + 2, most);
                return;
            }
            // Neither may be shorter, nor is an MSS of another length one.
            (_, 0 | 1) | (option::MSS, _) => return,
            (_, length) => length,
        };
        at += usize::from(length);
    }
}

/// Sets the value at `at` to `most` if it is more.
fn replace<P: Packet>(packet: &mut P, tcp: usize, at: usize, most: u16) {
    let Some(value) = packet.get_mut::<U16>(at) else {
        return;
    };
    let old = value.get();
    if old <= most {
        return;
    }
    value.set(most);
    // Across two words of the sum, its octets count the other way round.
    let delta = if (at - tcp).is_multiple_of(2) {
        Delta::default().word(old, most)
    } else {
        Delta::default().word(old.swap_bytes(), most.swap_bytes())
    };
    if let Some(checksum) = packet.get_mut::<U16>(tcp + Tcp::CHECKSUM) {
        checksum.set(delta.apply(checksum.get()));
    }
}
