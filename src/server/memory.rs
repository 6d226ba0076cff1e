//! Memory that clients have left behind.
//!
//! glibc keeps what is freed, in an arena for each thread: a proxy that
//! thousands of clients have left would stay as large as it was with them, and
//! one with a few that come and go grows for hours until each arena has seen
//! its most. Given back is what no session uses, once nobody is there to wait
//! for it, or a crowd has gone.

/// Clients gone, beyond as many as are still there, whose memory is worth
/// some milliseconds in which allocations may wait.
const CROWD: usize = 1000;

/// How many clients there have been since memory was last given back.
#[derive(Default)]
pub struct Left {
    most: usize,
    before: usize,
}

impl Left {
    /// Whether memory is to be given back, with `now` clients connected. To be
    /// asked again and again; nobody has to be there twice in a row.
    pub fn is_worth_it(&mut self, now: usize) -> bool {
        let idle = now == 0 && self.before == 0;
        self.before = now;
        self.most = self.most.max(now);
        let gone = self.most - now;
        let worth_it = (idle && gone > 0) || gone >= now + CROWD;
        if worth_it {
            self.most = now;
        }
        worth_it
    }
}

/// Gives free memory back to the kernel; takes milliseconds.
#[allow(unsafe_code)]
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches free memory only, and locks each arena meanwhile.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_after_the_last_client_and_after_a_crowd() {
        let mut left = Left::default();
        let mut asked =
            |now: &[usize]| -> Vec<bool> { now.iter().map(|n| left.is_worth_it(*n)).collect() };
        assert_eq!(asked(&[0, 0]), [false, false]);
        assert_eq!(asked(&[8, 0, 0, 0]), [false, false, true, false]);
        assert_eq!(asked(&[8, 0, 8, 0]), [false; 4]);
        assert_eq!(
            asked(&[5000, 2001, 2000, 1999]),
            [false, false, true, false]
        );
    }
}
