use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn tables_are_aligned_and_say_both_directions() {
    let flows = json!([{
        "protocol": "udp", "source": "2001:db8::7", "sourcePort": 5000, "destination": "203.0.113.9", "destinationPort": 443,
        "rule": "video/r1", "ingress": "ran0", "target": "app0",
        "upstream": {"packets": 10, "bytes": 2048}, "downstream": {"packets": 2000, "bytes": 5_000_000}
    }]);
    let table = table::render(Kind::Flows, &flows, false);
    assert_eq!(
        table,
        "PROTO  SOURCE              DESTINATION      RULE      PORTS        UP PKTS  UP BYTES  DOWN PKTS  DOWN BYTES\n\
         udp    [2001:db8::7]:5000  203.0.113.9:443  video/r1  ran0 > app0  10       2.0 KiB   2000       4.8 MiB\n"
    );
    assert_eq!(table::render(Kind::Rules, &json!([]), true), "none");
}

#[test]
fn every_problem_of_a_file_is_located() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write(
        "a.json",
        r#"[{"appInstanceId": "a", "interface": {"macAddress": "x"}}, {"appInstanceId": "b"}]"#,
    );
    write(
        "b.yaml",
        "appInstanceId: b\n---\nappInstanceId: c\ntrafficRules: [{priority: 555}]\n",
    );
    let error = check::applications(directory.path())
        .unwrap_err()
        .to_string();
    for words in [
        "a.json: application `a`: /interface/macAddress",
        "(document 2): /trafficRules/0/priority",
        "b.yaml: /appInstanceId: `b`",
    ] {
        assert!(error.contains(words), "{words} in {error}");
    }
    write("a.json", "[]");
    write("b.yaml", "appInstanceId: b\n");
    assert_eq!(check::applications(directory.path()).unwrap().len(), 1);
}

#[test]
fn a_daemon_that_does_not_run_is_said_to() {
    let error = Client::new("unix:/nonexistent/api.sock")
        .unwrap()
        .get("/")
        .unwrap_err();
    assert!(format!("{error:#}").contains("does not run"), "{error:#}");
    assert!(Client::new("ftp://x").is_err());
}

#[test]
fn captures_are_read() {
    let mut file = vec![
        0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0,
    ];
    file.extend([0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0xab, 0xcd]);
    assert_eq!(pcap::frames(&file).unwrap(), [[0xab, 0xcd]]);
    file.pop();
    assert!(pcap::frames(&file).is_err());
    assert!(pcap::frames(b"no").is_err());
}
