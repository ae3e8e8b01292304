//! The stacks of guests of WASI 0.3, which run beside their host calls on one of their own.
//!
//! Made when there is none free, on the worker that runs the guest, and kept for the next one: no guest can read a stack. There are no
//! more than so many, since a guest may have several.

use std::{
    fmt, io,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    mm::{self, MapFlags, MprotectFlags, ProtFlags},
    param::page_size,
};
use wasmtime::{Result, StackCreator, StackMemory};

use super::mapping::Mapping;

/// Most stacks that are kept while no guest has them. Each keeps what its guests have used, a MiB at the most.
const MOST_FREE: usize = 128;

/// All stacks of an engine.
pub(crate) struct Stacks(Arc<Inner>);

struct Inner {
    most: u32,
    stacks: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    free: Vec<Stack>,
    in_use: u32,
}

/// Why a guest has not got the stack that it needs.
#[derive(Debug)]
pub(crate) struct NoStack(u32);

impl fmt::Display for NoStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "all {} stacks for guests of WASI 0.3 are in use", self.0)
    }
}

impl std::error::Error for NoStack {}

impl Stacks {
    pub(crate) fn new(most: u32) -> Self {
        Self(Arc::new(Inner { most, stacks: Mutex::default() }))
    }
}

#[allow(unsafe_code, reason = "wasmtime runs guests on what it gets here")]
// SAFETY: a stack is whole pages that nobody else has until it is dropped, with a page below that cannot be accessed.
unsafe impl StackCreator for Stacks {
    /// It is never asked for zeros (`async_stack_zeroing`), and does not make them; and always for the same size.
    fn new_stack(&self, size: usize, _zeroed: bool) -> Result<Box<dyn StackMemory>> {
        let free = {
            let mut stacks = self.0.stacks.lock().unwrap_or_else(PoisonError::into_inner);
            if stacks.in_use == self.0.most {
                return Err(NoStack(self.0.most).into());
            }
            stacks.in_use += 1;
            stacks.free.pop()
        };
        // Counted as in use from here on, which its drop undoes.
        let mut stack = GuestStack { stack: free, stacks: Arc::clone(&self.0) };
        if stack.stack.as_ref().is_none_or(|stack| stack.size() < size) {
            stack.stack = Some(Stack::new(size)?);
        }
        Ok(Box::new(stack))
    }
}

/// A stack that a guest has.
struct GuestStack {
    /// There until it is dropped, once it was made.
    stack: Option<Stack>,
    stacks: Arc<Inner>,
}

impl GuestStack {
    fn stack(&self) -> &Stack {
        self.stack.as_ref().unwrap_or_else(|| unreachable!("a guest has its stack until it is dropped"))
    }
}

#[allow(unsafe_code, reason = "wasmtime runs guests on what it gets here")]
// SAFETY: see `Stacks`.
unsafe impl StackMemory for GuestStack {
    fn top(&self) -> *mut u8 {
        self.stack().top()
    }

    fn range(&self) -> Range<usize> {
        self.stack().guard().end.addr()..self.stack().top().addr()
    }

    fn guard_range(&self) -> Range<*mut u8> {
        self.stack().guard()
    }
}

impl Drop for GuestStack {
    fn drop(&mut self) {
        let mut stacks = self.stacks.stacks.lock().unwrap_or_else(PoisonError::into_inner);
        stacks.in_use -= 1;
        if stacks.free.len() < MOST_FREE {
            stacks.free.extend(self.stack.take());
        }
    }
}

/// A page that cannot be accessed, and above it a stack.
struct Stack(Mapping);

impl Stack {
    fn new(size: usize) -> io::Result<Self> {
        let length = size.next_multiple_of(page_size()) + page_size();
        let mapping = Mapping::anonymous(length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)?;
        // SAFETY: the first page of what was just mapped.
        #[allow(unsafe_code, reason = "mprotect")]
        unsafe { mm::mprotect(mapping.start().cast(), page_size(), MprotectFlags::empty()) }?;
        Ok(Self(mapping))
    }

    fn guard(&self) -> Range<*mut u8> {
        self.0.start()..self.0.start().wrapping_add(page_size())
    }

    fn top(&self) -> *mut u8 {
        self.0.start().wrapping_add(self.0.length())
    }

    /// Bytes that can be used.
    fn size(&self) -> usize {
        self.0.length() - page_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_stacks_than_so_many_and_they_are_used_again() {
        let (stacks, size) = (Stacks::new(2), 10 * page_size());
        let new = || stacks.new_stack(size, false);
        let (first, second) = (new().expect("free"), new().expect("free"));
        assert_eq!(first.range().len(), size);
        assert_eq!(first.top().addr(), first.range().end);
        assert_eq!(first.guard_range().end.addr(), first.range().start);
        let refused = new().err().expect("both are in use");
        assert_eq!(refused.to_string(), "all 2 stacks for guests of WASI 0.3 are in use");
        assert!(refused.is::<NoStack>());
        let place = second.top();
        drop(second);
        assert_eq!(new().expect("free again").top(), place);
    }
}
