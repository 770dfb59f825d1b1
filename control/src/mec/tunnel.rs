//! Destinations of type TUNNEL: `TunnelInfo` (7.1.5.4), with `tunnelSpecificData` of MEC 010-2, whose members
//! here are ours.

use dataplane_user::rule::{Encapsulation, Part, Target};

use super::{
    DestinationInterface, Interface, Refusal,
    convert::{address, parse},
    destination::{TunnelInfo, TunnelType},
};

/// Where what tells tunnels apart is.
const DATA: &str = "/tunnelInfo/tunnelSpecificData";

/// The tunnel that an interface describes. Pointers in refusals start at the interface.
pub(super) fn target(wire: &DestinationInterface, app: &Interface) -> Result<Target, Refusal> {
    let needed = |pointer: &str, why: &str| Refusal::new(pointer, why);
    if wire.nat == Some(true) {
        let why = "addresses are translated for destinations of type IP only";
        return Err(Refusal::new("/x-nat", why));
    }
    let info = wire.tunnel_info.as_ref();
    let info =
        info.ok_or_else(|| needed("/tunnelInfo", "a destination of type TUNNEL needs it"))?;
    let encapsulation = match info.tunnel_type {
        TunnelType::GtpU => Encapsulation::Gtpu {
            teid: number(info, "teid")?.ok_or_else(|| {
                needed(
                    &format!("{DATA}/teid"),
                    "a tunnel of type GTP_U needs a TEID, from 1 to 4294967295",
                )
            })?,
            qfi: number(info, "qfi")?.map(|qfi| u8::try_from(qfi).unwrap_or(u8::MAX)),
        },
        TunnelType::Gre => Encapsulation::Gre {
            key: number(info, "greKey")?,
        },
        TunnelType::Vxlan => Encapsulation::Vxlan {
            vni: number(info, "vni")?.ok_or_else(|| {
                needed(
                    &format!("{DATA}/vni"),
                    "a tunnel of type VXLAN needs a VNI, from 0 to 16777215",
                )
            })?,
            mac: {
                let mac = wire.dst_mac_address.as_ref().or(app.mac_address.as_ref());
                let mac = mac.ok_or_else(|| {
                    needed(
                        "/dstMacAddress",
                        "a tunnel of type VXLAN needs the MAC address of the application in that network, \
                         or the application's interface.macAddress",
                    )
                })?;
                parse("/dstMacAddress", mac)?
            },
        },
    };
    let destination = info
        .tunnel_dst_address
        .as_ref()
        .or_else(|| app.ip_addresses.as_ref()?.first());
    let destination = destination.ok_or_else(|| {
        needed(
            "/tunnelInfo/tunnelDstAddress",
            "a destination of type TUNNEL needs it, or the application's interface.ipAddresses",
        )
    })?;
    let source = info.tunnel_src_address.as_ref();
    Ok(Target {
        encapsulation,
        destination: address("/tunnelInfo/tunnelDstAddress", destination)?,
        source: source
            .map(|source| address("/tunnelInfo/tunnelSrcAddress", source))
            .transpose()?,
    })
}

/// A number of 32 bits in the data that is specific to the tunnel.
fn number(info: &TunnelInfo, member: &str) -> Result<Option<u32>, Refusal> {
    let Some(data) = &info.tunnel_specific_data else {
        return Ok(None);
    };
    let members = data
        .as_object()
        .ok_or_else(|| Refusal::new(DATA, "an object is expected, such as {\"teid\": 4660}"))?;
    let Some(value) = members.get(member).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    let refusal = || {
        let why = format!("`{value}` is not a number from 0 to 4294967295");
        Refusal::new(format!("{DATA}/{member}"), why)
    };
    number.ok_or_else(refusal).map(Some)
}

/// The JSON pointer to a part of a tunnel, below the interface.
pub(crate) const fn pointer(part: Part) -> &'static str {
    match part {
        Part::Destination => "/tunnelInfo/tunnelDstAddress",
        Part::Source => "/tunnelInfo/tunnelSrcAddress",
        Part::Teid => "/tunnelInfo/tunnelSpecificData/teid",
        Part::Qfi => "/tunnelInfo/tunnelSpecificData/qfi",
        Part::Vni => "/tunnelInfo/tunnelSpecificData/vni",
        Part::Mac => "/dstMacAddress",
    }
}
