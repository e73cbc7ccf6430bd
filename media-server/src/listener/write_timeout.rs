//! A stream that fails once its peer has taken nothing in for too long: what hyper has no timer for,
//! and without which a client that never reads holds a connection for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

pub(super) struct WriteTimeout<S> {
    stream: S,
    within: Duration,
    /// Told of each change.
    tell: Box<dyn Fn(bool) + Send>,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteTimeout<S> {
    /// `tell` is told when a write begins to wait and when it waits no longer.
    pub(super) fn new(stream: S, within: Duration, tell: impl Fn(bool) + Send + 'static) -> Self {
        WriteTimeout {
            stream,
            within,
            tell: Box::new(tell),
            stalled: None,
        }
    }

    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.stalled.take().is_some() {
                (self.tell)(false);
            }
            return written;
        }
        let stalled = match &mut self.stalled {
            Some(stalled) => stalled,
            none => {
                (self.tell)(true);
                none.insert(Box::pin(sleep(self.within)))
            }
        };
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_peer_that_reads_nothing_ends_the_write_and_one_that_reads_does_not() {
        let within = Duration::from_millis(50);
        let (ours, mut theirs) = tokio::io::duplex(16);
        let (told, stalls) = std::sync::mpsc::channel();
        let tell = move |stalled| told.send(stalled).expect("the test listens");
        let mut stream = WriteTimeout::new(ours, within, tell.clone());
        let error = stream.write_all(&[1; 100]).await.expect_err("no reader");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(stalls.try_iter().collect::<Vec<_>>(), [true]);

        let (ours, mut reader) = tokio::io::duplex(50);
        let mut stream = WriteTimeout::new(ours, Duration::from_secs(60), tell);
        let mut got = [0; 100];
        let (written, read) =
            tokio::join!(stream.write_all(&[1; 100]), reader.read_exact(&mut got));
        written.expect("a reader");
        assert_eq!(read.expect("all of it"), 100);
        assert_eq!(stalls.try_iter().collect::<Vec<_>>(), [true, false]);
        theirs.shutdown().await.expect("ends");
    }
}
