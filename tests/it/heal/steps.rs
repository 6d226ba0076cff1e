//! Held transactions: the healer between the steps of a mirrored write.
