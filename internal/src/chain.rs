//! An error with its causes, on one line.

use std::{
    error::Error,
    fmt::{Display, Formatter, Result},
};

/// Writes an error and its sources, joined by colons. An error's own text does not repeat its
/// source; the place that prints it prints the chain.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl Display for Chain<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}", self.0)?;
        std::iter::successors(self.0.source(), |error| (*error).source())
            .try_for_each(|source| write!(f, ": {source}"))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug)]
    struct Outer(io::Error);

    impl Display for Outer {
        fn fmt(&self, f: &mut Formatter<'_>) -> Result {
            f.write_str("outer")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn it_writes_every_source_once() {
        let error = Outer(io::Error::other("inner"));
        assert_eq!(Chain(&error).to_string(), "outer: inner");
        assert_eq!(Chain(&io::Error::other("alone")).to_string(), "alone");
    }
}
