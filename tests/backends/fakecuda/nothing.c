// A libcuda.so.1 that is no driver, found before one that is.
int not_a_driver;
