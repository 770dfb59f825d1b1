use super::*;

const PORT: &str = "[[port]]\nname = 'ran0'\ninterface = 'eth1'\nrole = 'access'\n";

#[test]
fn peers_and_announcements() {
    let config = Config::parse(&format!(
        "{PORT}\
         [vip]\ninterface = 'vip0'\nhold_down = 3\non_exit = 'keep'\nbgp = {{ gobgp = '127.0.0.1:50051' }}\n\
         [[peer]]\nname = 'west'\naddress = '198.51.100.7'\nencapsulation = 'gre'\n\
         [[peer]]\nname = 'east'\naddress = '2001:db8::7'\nencapsulation = 'vxlan'\nvni = 7\nmac = '02:00:00:00:00:07'\n\
         source = '2001:db8::1'\nport = 'ran0'\n\
         [limits]\nvips = 8\n"
    ));
    let config = config.unwrap();
    let vip = &config.vip;
    assert_eq!((vip.interface.as_str(), vip.hold_down), ("vip0", 3));
    assert_eq!(vip.on_exit, OnExit::Keep);
    assert_eq!(
        vip.bgp,
        Some(Bgp::Gobgp("127.0.0.1:50051".parse().unwrap()))
    );
    let peers: Vec<_> = config.site().peers.into_iter().collect();
    let text = |it: &Endpoint| match it.address {
        EndpointAddress::Tunnel(target) => (target.to_string(), it.port.clone()),
        EndpointAddress::Mac(_) | EndpointAddress::Ip { .. } => panic!("{it:?}"),
    };
    let east = "vxlan 2001:db8::7 from 2001:db8::1 vni 7 mac 02:00:00:00:00:07";
    assert_eq!(peers[0].0, "east");
    assert_eq!(text(&peers[0].1), (east.into(), Some("ran0".into())));
    assert_eq!(text(&peers[1].1), ("gre 198.51.100.7".into(), None));
    let config = Config::parse(PORT).unwrap();
    assert_eq!(
        (config.vip.interface.as_str(), config.vip.on_exit),
        ("lo", OnExit::Withdraw)
    );
}

#[test]
fn refusals_say_what_and_where() {
    let peer = |rest: &str| format!("[[peer]]\nname = 'west'\naddress = '198.51.100.7'\n{rest}");
    let gre = "encapsulation = 'gre'\n";
    let vxlan = "encapsulation = 'vxlan'\n";
    for (text, words) in [
        (
            "[vip]\ninterface = 'a b'".to_owned(),
            &["[vip] interface"][..],
        ),
        ("[vip]\nhold_down = 86401".to_owned(), &["[vip] hold_down"]),
        (
            "[vip]\non_exit = 'withdrew'".to_owned(),
            &["withdrew", "`withdraw`"],
        ),
        (
            "[vip]\nbgp = { exabgp = 'pipe' }".to_owned(),
            &["exabgp", "absolute"],
        ),
        (
            "[vip]\nbgp = { bird = '/run' }".to_owned(),
            &["bird", "exabgp"],
        ),
        ("[limits]\nvips = 0".to_owned(), &["vips"]),
        (peer("encapsulation = 'ipip'"), &["ipip"]),
        (
            peer("encapsulation = 'gre'\nvni = 1"),
            &["peer `west`: vni", "vxlan"],
        ),
        (
            peer("encapsulation = 'gre'\nmac = 'x'"),
            &["peer `west`: mac"],
        ),
        (
            peer(&format!("{vxlan}key = 1")),
            &["peer `west`: key", "gre"],
        ),
        (peer(vxlan), &["needs vni and mac"]),
        (
            peer(&format!("{vxlan}vni = 1\nmac = 'x'")),
            &["peer `west`: mac"],
        ),
        (
            peer(&format!("{vxlan}vni = 1\nmac = '01:00:00:00:00:01'")),
            &["peer `west`: mac", "unicast"],
        ),
        (
            peer(&format!("{vxlan}vni = 16777216\nmac = '02:00:00:00:00:01'")),
            &["peer `west`: vni"],
        ),
        (
            peer(&format!("{gre}source = '2001:db8::1'")),
            &["peer `west`: source"],
        ),
        (peer(&format!("{gre}port = 'core0'")), &["port `core0`"]),
        (
            peer(gre).replace("198.51.100.7", "224.0.0.1"),
            &["peer `west`: address"],
        ),
        (peer(gre).replace("'west'", "'the west'"), &["`the west`"]),
        (peer(gre).repeat(2), &["two peers are called `west`"]),
    ] {
        let error = Config::parse(&format!("{PORT}{text}")).unwrap_err();
        let error = format!("{error:#}");
        for word in words {
            assert!(error.contains(word), "{text}: {word} in {error}");
        }
    }
}
