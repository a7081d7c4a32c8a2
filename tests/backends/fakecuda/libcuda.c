// A driver that goes no further than CUDA's runtime asks at first: which version it is, and whether it starts. Compiled with
// -DVERSION=12040 for CUDA 12.4, and -DINIT=100 for a cuInit that fails with that error.
int cuInit(unsigned flags) {
  (void)flags;
  return INIT;
}

int cuDriverGetVersion(int* version) {
  *version = VERSION;
  return 0;
}
