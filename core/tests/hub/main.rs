//! The hub, played by a real HTTP server on this machine: what it serves, refuses, cuts off and forges.
//!
//! Nothing here asks the network. Read in this order: `server.rs` (the server), `repository.rs` (what it serves, and
//! the pulls that ask for it); then the tests: `arrival.rs` (what comes and where it lies), `selection.rs` (which
//! files), `refusals.rs` (what the hub refuses, and when it is asked again), `transfer.rs` (what goes wrong on the
//! way), `redirects.rs`, `hostile.rs` (names, links and sizes), `environment.rs` (variables and proxies); `account.rs` (a hub that
//! can be written to), `upload.rs` (what is sent there).
#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used)]

mod account;
mod arrival;
mod environment;
mod hostile;
mod redirects;
mod refusals;
mod repository;
mod selection;
mod server;
mod transfer;
mod upload;
