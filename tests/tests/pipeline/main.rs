//! The service from end to end: the real binary or its providers against real or simulated peers.

mod admin;
mod calls;
mod content;
mod delivery;
mod dialing;
mod distributed;
mod doctor;
mod embedded;
mod incidents;
mod limits;
mod monitoring;
mod providers;
mod requests;
mod rotation;
mod scaling;
mod smpp;
mod texts;
mod traces;
mod vendors;
