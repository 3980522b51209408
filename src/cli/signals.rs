//! Signals that ask for something, and end nothing.

/// One kind of them. Where it cannot be watched, there are none.
pub(crate) struct Signals {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Signals {
    /// Wishes that what can be read anew is read anew, from now on.
    #[cfg(unix)]
    pub(crate) fn hangups() -> Self {
        Self::of(tokio::signal::unix::SignalKind::hangup())
    }

    /// Changes of the terminal's size, from now on.
    #[cfg(unix)]
    pub(crate) fn resizes() -> Self {
        Self::of(tokio::signal::unix::SignalKind::window_change())
    }

    #[cfg(unix)]
    fn of(kind: tokio::signal::unix::SignalKind) -> Self {
        let signal = tokio::signal::unix::signal(kind).ok();
        Self { signal }
    }

    #[cfg(not(unix))]
    pub(crate) fn hangups() -> Self {
        Self {}
    }

    #[cfg(not(unix))]
    pub(crate) fn resizes() -> Self {
        Self {}
    }

    /// Ready at the next one.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}
