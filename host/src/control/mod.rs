//! Operating a running host from outside: the control socket.
