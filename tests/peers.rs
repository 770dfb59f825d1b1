//! Two hosts that serve one VIP, each the fallback of the other, with real sockets.
use std::{collections::BTreeSet, io::Read as _};

use anyhow::Result;
use tests::lab::{Peer, Peers, wait};

#[test]
fn a_peer_serves_while_there_is_no_backend_here() {
    serves_while_there_is_no_backend(&Peers::start().unwrap()).unwrap();
}

#[test]
fn the_same_with_ues_and_peer_behind_one_port() {
    let lab = Peers::start_behind_a_router().unwrap();
    goes_nowhere(&lab).unwrap();
    serves_while_there_is_no_backend(&lab).unwrap();
    let east = &lab.hosts[1];
    let flow = "tcp 10.46.0.7:5000 > 203.0.113.80:80";
    let answer = east.daemon.explain(&east.host, "uplink0", flow).unwrap();
    let is = (&answer["reason"], &answer["targetPort"]);
    assert_eq!(is, (&"vip_peer".into(), &"uplink0".into()), "{answer}");
}

fn serves_while_there_is_no_backend(lab: &Peers) -> Result<()> {
    let [west, east] = &lab.hosts;
    let looped = || -> Result<_> { Ok([west.reason("vip_loop")?, east.reason("vip_loop")?]) };
    east.serve(true)?;
    let before = looped()?;
    // Octets are in tunnels both ways, and segments at first too long for them.
    assert!(west.ask(0)?.starts_with("east"));
    for octets in [100, 300_000] {
        assert_eq!(west.echo(octets)?, octets);
    }
    assert!(west.reason("vip_peer")? > 0);
    assert_eq!(west.status()?["healthy"], false);

    // What the peer has begun it ends, and what begins now is served here.
    let mut download = west.download()?;
    let mut first = [0; 512];
    let begun = download.read(&mut first)?;
    west.serve(true)?;
    for ue in 0..4 {
        assert!(west.ask(ue)?.starts_with("west"));
    }
    let mut rest = Vec::new();
    let came = begun + download.read_to_end(&mut rest)?;
    assert!(came > tests::lab::LONG, "{came} octets came");
    let head = String::from_utf8_lossy(&first[..begun]) + String::from_utf8_lossy(&rest[..80]);
    assert!(head.contains("\r\n\r\neast "), "{head}");

    // And the other way round.
    east.serve(false)?;
    assert!(east.ask(0)?.starts_with("west"));
    assert_eq!(east.echo(300_000)?, 300_000);
    assert_eq!(looped()?, before);
    Ok(())
}

#[test]
fn nothing_goes_round_between_hosts_without_backends() {
    goes_nowhere(&Peers::start().unwrap()).unwrap();
}

fn goes_nowhere(lab: &Peers) -> Result<()> {
    let [west, east] = &lab.hosts;
    for peer in &lab.hosts {
        wait("the VIP", || peer.status())?;
    }
    // Until the neighbor is known.
    wait("the peer", || {
        let asked = west.ask(0);
        anyhow::ensure!(asked.is_err() && west.reason("vip_peer")? > 0, "{asked:?}");
        Ok(())
    })?;
    let of =
        |peer: &Peer| -> Result<_> { Ok([peer.reason("vip_peer")?, peer.reason("vip_loop")?]) };
    let counted = || -> Result<_> { Ok([of(west)?, of(east)?]) };
    let before = counted()?;
    for ue in 0..8 {
        assert!(west.ask(ue).is_err());
    }
    let after = counted()?;
    let [sent, looped] = [after[0][0] - before[0][0], after[1][1] - before[1][1]];
    // Each packet crosses once, and ends there.
    assert!(sent >= 8 && sent == looped, "{sent} sent, {looped} ended");
    assert_eq!(after[0][1], 0, "nothing came back");
    assert_eq!(after[1][0], 0, "nothing was sent back");
    Ok(())
}

#[test]
fn a_ue_keeps_its_backend_over_connections() {
    let lab = Peers::start().unwrap();
    let west = &lab.hosts[0];
    west.serve(true).unwrap();
    let servers = |ue: u8| -> BTreeSet<String> {
        let all = (0..8).map(|_| west.ask(ue).unwrap());
        all.collect()
    };
    // By connection: one UE soon meets both.
    assert_eq!(servers(0).len(), 2);
    west.say("UE").unwrap();
    wait("affinity", || {
        let vip = west.daemon.get(&west.host, "vips")?;
        anyhow::ensure!(vip.to_string().contains("\"UE\""), "{vip}");
        Ok(())
    })
    .unwrap();
    let all: Vec<_> = (0..Peer::UES).map(servers).collect();
    assert!(all.iter().all(|it| it.len() == 1), "{all:?}");
    let elsewhere = all.iter().filter(|it| **it != all[0]).count();
    assert!(elsewhere > 0, "{all:?}");
}
