//! Unix datagram sockets on Linux: packets, descriptors, credentials, deadlines.
