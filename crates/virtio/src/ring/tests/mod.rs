mod hostile;
mod model;
mod small;
mod threads;
