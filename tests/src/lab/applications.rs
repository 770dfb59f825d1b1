//! The two local applications of a MEC host, behind its ports `app0` and `app1`.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;

use super::{Lab, Namespace, Server};

/// Joins the applications to the host, with all their addresses.
pub(super) fn connect(host: &Namespace, apps: &[Namespace; 2]) -> Result<()> {
    for ((index, app), mac) in apps.iter().enumerate().zip(Lab::APP_MACS) {
        let (port, n) = (format!("app{index}"), index + 1);
        host.link(&port, (app, "eth0"))?;
        app.prepare_far_end("eth0")?;
        host.ip(&format!(
            "addr add 198.18.{n}.1/24 dev {port}\n\
             addr add 2001:db8:a{n}::1/64 dev {port} nodad"
        ))?;
        let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
        app.ip(&format!(
            "link set eth0 address {mac}\n\
             addr add 198.18.{n}.2/24 dev eth0\n\
             addr add 2001:db8:a{n}::2/64 dev eth0 nodad\n\
             addr add 203.0.113.9/32 dev lo\n\
             addr add 2001:db8:203::9/128 dev lo nodad\n\
             route add default via 198.18.{n}.1\n\
             route add default via 2001:db8:a{n}::1"
        ))?;
    }
    Ok(())
}

/// Starts a server on the service address in the data network and in both applications, there on
/// their own addresses too.
pub(super) fn serve(network: &Namespace, apps: &[Namespace; 2]) -> Result<[Server; 3]> {
    let at = |address: IpAddr| SocketAddr::new(address, Lab::PORT);
    let service = [at(Lab::SERVICE), at(Lab::SERVICE6)];
    let app = |index: usize, name: &str| {
        let own = [at(Lab::APPS[index]), at(Lab::APPS6[index])];
        Server::start(&apps[index], name, &[service, own].concat())
    };
    Ok([
        Server::start(network, "network", &service)?,
        app(0, "app-a")?,
        app(1, "app-b")?,
    ])
}
