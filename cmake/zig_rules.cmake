# Read after CMake's own rules for macOS: zig links no bundles, and Node loads a dylib as well.
set(CMAKE_SHARED_MODULE_CREATE_CXX_FLAGS -shared)
