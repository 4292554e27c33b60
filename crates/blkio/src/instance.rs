//! A disk: its life, properties, memory regions and queues.

use rustix::io::Errno;

use crate::{
    Error, Kind, MemoryRegion, Property, Queue, Result, State, Value,
    drivers::{self, Driver},
    error::invalid,
    property::{connected_already, must_be_connected, must_be_started},
};

/// The property that each driver has.
const DRIVER: Property = Property::read("driver", Kind::Str, State::Created);

/// A queue's place: its index stays the same.
enum Place {
    Here(Box<Queue>),
    Taken,
    Free,
}

/// The queues of one kind.
#[derive(Default)]
struct Places(Vec<Place>);

impl Places {
    fn add(&mut self, queue: Queue) -> usize {
        let free = self.0.iter().position(|place| matches!(place, Place::Free));
        let index = free.unwrap_or(self.0.len());
        if index == self.0.len() {
            self.0.push(Place::Free);
        }
        self.0[index] = Place::Here(Box::new(queue));
        index
    }

    fn get(&mut self, index: usize) -> Option<&mut Queue> {
        match self.0.get_mut(index)? {
            Place::Here(queue) => Some(queue),
            _ => None,
        }
    }

    fn take(&mut self, index: usize) -> Option<Box<Queue>> {
        let place = self.0.get_mut(index)?;
        match std::mem::replace(place, Place::Taken) {
            Place::Here(queue) => Some(queue),
            other => {
                *place = other;
                None
            }
        }
    }

    fn remove(&mut self, index: usize) -> bool {
        match self.0.get_mut(index) {
            None | Some(Place::Free) => false,
            Some(place) => {
                *place = Place::Free;
                true
            }
        }
    }
}

/// A disk. See the [crate](crate).
pub struct Blkio {
    // Before the driver: queues go first, and wait for what uses the memory of regions.
    queues: Places,
    poll_queues: Places,
    mapped: Vec<MemoryRegion>,
    driver: Box<dyn Driver>,
    state: State,
    allocated: Vec<MemoryRegion>,
}

impl std::fmt::Debug for Blkio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blkio({}, {:?})", self.driver.name(), self.state)
    }
}

/// Life.
impl Blkio {
    /// A disk that is to be reached by the driver of this name; see [`crate::DRIVERS`].
    ///
    /// # Errors
    ///
    /// ENOENT for an unknown name; ENOSYS if the system has not what the driver needs.
    pub fn new(driver: &str) -> Result<Blkio> {
        Ok(Blkio {
            driver: drivers::create(driver)?,
            state: State::Created,
            queues: Places::default(),
            poll_queues: Places::default(),
            mapped: Vec::new(),
            allocated: Vec::new(),
        })
    }

    /// How far it has come.
    pub fn state(&self) -> State {
        self.state
    }

    /// Reaches the disk. Once connected this does nothing.
    ///
    /// # Errors
    ///
    /// EBUSY once started; whatever keeps the disk from being reached.
    pub fn connect(&mut self) -> Result<()> {
        match self.state {
            State::Created => self.driver.connect()?,
            State::Connected => {}
            State::Started => return Err(connected_already()),
        }
        self.state = State::Connected;
        Ok(())
    }

    /// Makes the queues. Once started this does nothing.
    ///
    /// # Errors
    ///
    /// ENODEV before it is connected; EINVAL for numbers that the disk cannot do.
    pub fn start(&mut self) -> Result<()> {
        match self.state {
            State::Created => return Err(must_be_connected()),
            State::Connected => {}
            State::Started => return Ok(()),
        }
        let queues = self.driver.start()?;
        for queue in queues.queues {
            self.queues.add(queue);
        }
        for queue in queues.poll_queues {
            self.poll_queues.add(queue);
        }
        self.state = State::Started;
        Ok(())
    }
}

/// Properties.
impl Blkio {
    /// All properties that there are.
    pub fn properties(&self) -> impl Iterator<Item = &'static Property> + use<> {
        const FIRST: &[Property] = &[DRIVER];
        let [common, own] = self.driver.properties();
        FIRST.iter().chain(common).chain(own)
    }

    fn find(&self, name: &str) -> Result<&'static Property> {
        let found = self.properties().find(|property| property.name == name);
        found.ok_or_else(|| Error::new(Errno::NOENT, "Unknown property name"))
    }

    /// A property's value.
    ///
    /// # Errors
    ///
    /// ENOENT for an unknown name; ENODEV or EBUSY before it has a value.
    pub fn get(&mut self, name: &str) -> Result<Value> {
        let property = self.find(name)?;
        property.check_readable(self.state)?;
        if name == DRIVER.name {
            return Ok(Value::Str(self.driver.name().into()));
        }
        self.driver.get(name, self.state)
    }

    /// A property of this kind.
    fn get_as(&mut self, name: &str, kind: Kind) -> Result<Value> {
        match self.find(name)?.kind == kind {
            true => self.get(name),
            false => Err(kind.mismatch()),
        }
    }

    /// The value of a property that is a bool.
    ///
    /// # Errors
    ///
    /// As [`Blkio::get`], and ENOTTY if it is none.
    pub fn get_bool(&mut self, name: &str) -> Result<bool> {
        match self.get_as(name, Kind::Bool)? {
            Value::Bool(value) => Ok(value),
            _ => Err(Kind::Bool.mismatch()),
        }
    }

    /// The value of a property that is an int.
    ///
    /// # Errors
    ///
    /// As [`Blkio::get`], and ENOTTY if it is none.
    pub fn get_int(&mut self, name: &str) -> Result<i32> {
        match self.get_as(name, Kind::Int)? {
            Value::Int(value) => Ok(value),
            _ => Err(Kind::Int.mismatch()),
        }
    }

    /// The value of a property that is an unsigned 64-bit integer.
    ///
    /// # Errors
    ///
    /// As [`Blkio::get`], and ENOTTY if it is none.
    pub fn get_u64(&mut self, name: &str) -> Result<u64> {
        match self.get_as(name, Kind::U64)? {
            Value::U64(value) => Ok(value),
            _ => Err(Kind::U64.mismatch()),
        }
    }

    /// The value of a property of any kind, as text.
    ///
    /// # Errors
    ///
    /// As [`Blkio::get`].
    pub fn get_str(&mut self, name: &str) -> Result<String> {
        Ok(self.get(name)?.to_string())
    }

    /// Sets a property to a value of its kind.
    ///
    /// # Errors
    ///
    /// ENOENT for an unknown name, ENOTTY for another kind, EACCES if it cannot be set, ENODEV or EBUSY
    /// if it cannot be set in this state, EINVAL for a value that it cannot have.
    pub fn set(&mut self, name: &str, value: Value) -> Result<()> {
        let property = self.find(name)?;
        if property.kind != value.kind() {
            let text = match value.kind() {
                // In these words, other than when it is read.
                Kind::U64 => "Property is not an unsigned 64-bit int",
                kind => return Err(kind.mismatch()),
            };
            return Err(Error::new(Errno::NOTTY, text));
        }
        property.check_writable(self.state)?;
        self.driver.set(name, value)
    }

    /// Sets a property of any kind from text.
    ///
    /// # Errors
    ///
    /// As [`Blkio::set`], and EINVAL for text that is no such value.
    pub fn set_str(&mut self, name: &str, text: &str) -> Result<()> {
        let value = self.find(name)?.kind.parse(text)?;
        self.set(name, value)
    }
}

/// Memory regions.
impl Blkio {
    /// New memory for data, which is to be mapped before it is used.
    ///
    /// # Errors
    ///
    /// ENODEV before it is connected; EINVAL for 0 bytes; ENOMEM.
    pub fn alloc_region(&mut self, len: usize) -> Result<MemoryRegion> {
        if self.state == State::Created {
            return Err(must_be_connected());
        }
        let region = MemoryRegion::alloc(len)?;
        self.allocated.push(region);
        Ok(region)
    }

    /// Gives memory of [`Blkio::alloc_region`] back; other memory is left alone. It is unmapped first.
    pub fn free_region(&mut self, region: &MemoryRegion) {
        let Some(index) = self.allocated.iter().position(|other| other == region) else {
            return;
        };
        self.unmap_region(region);
        let region = self.allocated.swap_remove(index);
        // SAFETY: allocated here, taken out just now, and not mapped any more. Its user gives it back,
        // so that no request uses it.
        unsafe { region.free() };
    }

    /// The disk may use this memory from now on.
    ///
    /// # Errors
    ///
    /// EBUSY before it is started; EINVAL for a region that is mapped, or not as the driver needs it.
    pub fn map_region(&mut self, region: &MemoryRegion) -> Result<()> {
        if self.state != State::Started {
            return Err(must_be_started());
        }
        if self.mapped.contains(region) {
            return Err(invalid("memory region already mapped"));
        }
        self.driver.map(region)?;
        self.mapped.push(*region);
        Ok(())
    }

    /// And not any more. Does nothing with a region that is not mapped.
    pub fn unmap_region(&mut self, region: &MemoryRegion) {
        if let Some(index) = self.mapped.iter().position(|other| other == region) {
            self.mapped.swap_remove(index);
            self.driver.unmap(region);
        }
    }
}

/// Queues.
impl Blkio {
    /// The queue of this index, if there is one and it was not taken.
    pub fn queue(&mut self, index: usize) -> Option<&mut Queue> {
        self.queues.get(index)
    }

    /// The poll queue of this index.
    pub fn poll_queue(&mut self, index: usize) -> Option<&mut Queue> {
        self.poll_queues.get(index)
    }

    /// Takes the queue of this index out, for another thread. Its place remains taken until
    /// [`Blkio::remove_queue`].
    pub fn take_queue(&mut self, index: usize) -> Option<Box<Queue>> {
        self.queues.take(index)
    }

    /// Takes the poll queue of this index out.
    pub fn take_poll_queue(&mut self, index: usize) -> Option<Box<Queue>> {
        self.poll_queues.take(index)
    }

    /// One more queue; its index.
    ///
    /// # Errors
    ///
    /// ENOTSUP if the driver cannot; EBUSY before it is started.
    pub fn add_queue(&mut self) -> Result<usize> {
        let queue = self.new_queue(false)?;
        Ok(self.queues.add(queue))
    }

    /// One more poll queue; its index.
    ///
    /// # Errors
    ///
    /// As [`Blkio::add_queue`], and EINVAL if there are no poll queues.
    pub fn add_poll_queue(&mut self) -> Result<usize> {
        let queue = self.new_queue(true)?;
        Ok(self.poll_queues.add(queue))
    }

    fn new_queue(&mut self, poll: bool) -> Result<Queue> {
        if !self.get_bool("can-add-queues")? {
            let text = "Driver does not support dynamically adding queues";
            return Err(Error::new(Errno::NOTSUP, text));
        }
        if self.state != State::Started {
            return Err(must_be_started());
        }
        self.driver.add_queue(poll)
    }

    /// Removes a queue; the other indices stay. One that was taken remains with whoever took it.
    ///
    /// # Errors
    ///
    /// ENOENT if there is none.
    pub fn remove_queue(&mut self, index: usize) -> Result<()> {
        match self.queues.remove(index) {
            true => Ok(()),
            false => Err(no_queue(index)),
        }
    }

    /// Removes a poll queue.
    ///
    /// # Errors
    ///
    /// ENOENT if there is none.
    pub fn remove_poll_queue(&mut self, index: usize) -> Result<()> {
        match self.poll_queues.remove(index) {
            true => Ok(()),
            false => Err(no_queue(index)),
        }
    }
}

fn no_queue(index: usize) -> Error {
    Error::new(Errno::NOENT, format!("no queue with index {index}"))
}

impl Drop for Blkio {
    fn drop(&mut self) {
        // Requests first, then what they use.
        self.queues = Places::default();
        self.poll_queues = Places::default();
        for region in std::mem::take(&mut self.mapped) {
            self.driver.unmap(&region);
        }
        for region in std::mem::take(&mut self.allocated) {
            // SAFETY: allocated here, never freed, and no queue of ours uses it any more. Whoever took a
            // queue keeps its requests away from the memory of a disk that is gone.
            unsafe { region.free() };
        }
    }
}
