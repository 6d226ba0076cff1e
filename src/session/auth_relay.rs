//! Passes the packets of an authentication on between a client and home.
