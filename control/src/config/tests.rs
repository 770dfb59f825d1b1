use super::*;

const GOOD: &str = r#"
        [node]
        id = "mec-host-1"
        [[port]]
        name = "ran0"
        interface = "eth1"
        role = "access"
        pair = "core0"
        [[port]]
        name = "core0"
        interface = "eth2"
        role = "core"
        pair = "ran0"
        [api]
        listen = "127.0.0.1:8080"
        [source.files]
        directory = "/etc/edgesteer/rules.d"
        [source.mep]
        url = "http://mep/mec_app_support/v2"
        applications = ["a", { id = "b", interface = { port = "core0" } }]
        [metrics]
        listen = "[::1]:9464"
        flows = { top = 10 }
        [limits]
        flows = 1000
        [timeouts]
        udp = 30
    "#;

#[test]
fn a_full_configuration() {
    let config = Config::parse(GOOD).unwrap();
    assert_eq!(config.ports.len(), 2);
    assert_eq!(config.metrics.flows.top, 10);
    assert_eq!(config.api.socket, PathBuf::from(SOCKET));
}

#[test]
fn refusals_say_what_and_where() {
    for (from, to, words) in [
        (
            "interface = \"eth1\"",
            "interfaces = \"eth1\"",
            &["line 6", "interfaces", "did you mean `interface`?"][..],
        ),
        (
            "role = \"access\"",
            "role = \"acces\"",
            &["line 7", "did you mean `access`?"],
        ),
        (
            "[limits]",
            "[limitz]",
            &["limitz", "did you mean `limits`?"],
        ),
        (
            "pair = \"core0\"",
            "pair = \"core1\"",
            &["core1", "not a port"],
        ),
        ("pair = \"ran0\"", "", &["core0", "needs pair = \"ran0\""]),
        ("pair = \"core0\"", "pair = \"ran0\"", &["itself"]),
        (
            "name = \"core0\"",
            "name = \"ran0\"",
            &["two ports", "ran0"],
        ),
        (
            "interface = \"eth2\"",
            "interface = \"eth1\"",
            &["same interface", "eth1"],
        ),
        (
            "name = \"core0\"",
            "name = \"core 0\"",
            &["core 0", "letters"],
        ),
        (
            "interface = \"eth2\"",
            "interface = \"averylonginterface\"",
            &["averylonginterface", "15"],
        ),
        (
            "127.0.0.1:8080",
            "0.0.0.0:8080",
            &["[api]", "loopback", "TLS"],
        ),
        ("[::1]:9464", "192.0.2.1:9464", &["[metrics]", "loopback"]),
        ("http://mep", "ftp://mep", &["http://"]),
        ("flows = 1000", "flows = \"many\"", &["line", "flows"]),
    ] {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD);
        let error = Config::parse(&text).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{word} in: {error}");
        }
    }
    assert!(
        Config::parse("")
            .unwrap_err()
            .to_string()
            .contains("[[port]]")
    );
}

#[test]
fn every_problem_is_said() {
    let text = GOOD
        .replace("pair = \"core0\"", "pair = \"core1\"")
        .replace("127.0.0.1:8080", "0.0.0.0:8080")
        .replace("http://mep", "mep");
    let error = Config::parse(&text).unwrap_err().to_string();
    for words in ["core1", "[api] listen", "[source.mep] url"] {
        assert!(error.contains(words), "{words} in {error}");
    }
}

#[test]
fn tunnels_are_between_endpoints() {
    let text = |core: &str| {
        format!(
            "[gtpu]\nran = ['192.0.2.0/24']\ncore = ['{core}']\n\
             [[port]]\nname = 'n3'\ninterface = 'eth1'\nrole = 'access'\nencapsulation = 'gtpu'\n"
        )
    };
    for core in ["198.51.100.1", "2001:db8:51::/64"] {
        let config = Config::parse(&text(core)).unwrap();
        assert!(config.sees_gtpu(&config.ports[0]), "{core}");
        assert_eq!(config.gtpu.core, [core.parse().unwrap()]);
        assert!(!config.gtpu.mss_clamp);
    }
    let text = text("198.51.100.1");
    let clamping = text.replace("[gtpu]", "[gtpu]\nmss_clamp = true");
    let options = worker::options(&Config::parse(&clamping).unwrap());
    assert!(options.ports[0].mss_clamp);
    let none = text.replace("encapsulation = 'gtpu'", "");
    let error = Config::parse(&none).unwrap_err().to_string();
    assert!(error.contains("no [[port]] has encapsulation"), "{error}");
}

#[test]
fn what_the_data_path_would_not_start_with_is_refused() {
    let ports = |count: usize| -> String {
        let port = |n| format!("[[port]]\nname = 'p{n}'\ninterface = 'eth{n}'\nrole = 'app'\n");
        (0..count).map(port).collect()
    };
    let endpoints: Vec<String> = (0..16).map(|n| format!("'192.0.2.{n}'")).collect();
    let tunnels = format!(
        "[gtpu]\nran = [{}]\ncore = ['198.51.100.1']\n\
         [[port]]\nname = 'n3'\ninterface = 'eth1'\nrole = 'access'\nencapsulation = 'gtpu'\n",
        endpoints.join(", ")
    );
    for (text, words) in [
        (ports(65), &["65 ports", "64"][..]),
        (
            GOOD.replace("flows = 1000", "flows = 0"),
            &["[limits] flows = 0", "from 1 to"],
        ),
        (
            GOOD.replace("flows = 1000", "rules = 4000000000"),
            &["[limits] rules = 4000000000", "from 1 to"],
        ),
        (
            GOOD.replacen("pair = \"ran0\"", "pair = \"ran0\"\nzone = 1", 1),
            &["different zones"],
        ),
        (tunnels, &["[gtpu]", "17 ranges", "16"]),
    ] {
        let error = Config::parse(&text).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{word} in: {error}");
        }
        assert!(!error.contains("Raise [limits] ports"), "{error}");
    }
    Config::parse(&ports(64)).unwrap();
}
