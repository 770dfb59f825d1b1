//! What the tests of edgesteer stand on: packets, the oracle, the lab and the scenarios.

pub mod executor;
pub mod lab;
pub mod oracle;
pub mod packet;
pub mod scenario;
pub mod shapes;
pub mod tree;
pub mod tshark;
pub mod world;
