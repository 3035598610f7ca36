//! Load from several processes: a master, which decides and adds up, and workers, which have the users.
//!
//! Workers connect to the master over TCP ([`worker::work`]). Both prove that they have the secret of the test
//! ([`Secret`]), then the master assigns users, and the workers send what they have measured, once a second and at the end of
//! the test. [`Spread`] says which worker has which users, [`Scaler`] how many workers there are, [`Roster`] what is known of
//! each; they do no I/O. A [`Launcher`] starts workers.
//!
//! A connection that is silent, or sends anything but the protocol, is closed. If a worker is lost, the others take its users:
//! what it had sent counts. If the master is lost, workers end their users at once.

mod coordinate;
mod frame;
mod handshake;
mod launcher;
mod listener;
mod master;
mod message;
mod roster;
mod scaling;
mod spread;
mod users;
pub mod worker;

pub use coordinate::Cluster;
pub use frame::FrameError;
pub use handshake::{HandshakeError, Secret, VERSION};
pub use launcher::Launcher;
pub use master::{ClusterError, Ended, Master, Options, Pulse, Test};
pub use message::{RunId, WorkerId};
pub use roster::{Lost, Roster};
pub use scaling::{Scaler, Scaling, Seen};
pub use spread::Spread;
