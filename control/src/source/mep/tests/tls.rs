//! The same over TLS, with a certificate that only its own authority vouches for.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
    thread,
    time::Duration,
};

use rustls::{
    ServerConfig, ServerConnection, Stream,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::json;

use super::{
    super::{
        super::Reason,
        client::{Answer, Client},
    },
    rule,
    standin::Reply,
};

#[test]
fn a_platform_with_its_own_authority() {
    let directory = tempfile::tempdir().unwrap();
    let authority = directory.path().join("ca.pem");
    let (port, certificate) = serve(Reply::json(json!([rule("r1")])));
    std::fs::write(&authority, certificate).unwrap();
    let timeout = Duration::from_secs(5);
    let url = format!("https://localhost:{port}/");
    let trusting = Client::new(timeout, Some(&authority)).unwrap();
    assert!(matches!(
        trusting.get(&url, None),
        Ok(Answer::Document { .. })
    ));
    let other = format!("https://127.0.0.1:{port}/");
    assert!(trusting.get(&other, None).is_err(), "another name");
    let strict = Client::new(timeout, None).unwrap();
    let trouble = strict.get(&url, None).unwrap_err();
    assert_eq!(trouble.failure.reason, Reason::Unreachable);
    assert!(
        trouble.failure.what.contains("certificate"),
        "{}",
        trouble.failure
    );
}

#[test]
fn certificates_that_cannot_be_used_are_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    let timeout = Duration::from_secs(1);
    let refused = |words: &str| {
        let error = Client::new(timeout, Some(&path)).err().unwrap();
        assert!(format!("{error:#}").contains(words), "{error:#}");
    };
    refused("cannot read certificates");
    std::fs::write(&path, "not a certificate").unwrap();
    refused("no certificate");
}

/// Answers everything with `reply`; returns the port and the certificate of the authority, in PEM form.
fn serve(reply: Reply) -> (u16, String) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(
        certified.signing_key.serialize_der(),
    ));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("localhost:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = Stream::new(&mut connection, &mut socket);
            // A client that does not trust us is gone by now, as it should be.
            if stream.read(&mut [0; 4096]).is_ok() {
                let _ = stream.write_all(reply.bytes());
            }
            connection.send_close_notify();
            let _ = connection.complete_io(&mut socket);
        }
    });
    (port, certified.cert.pem())
}
