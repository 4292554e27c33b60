mod hostile;
mod model;
mod small;
