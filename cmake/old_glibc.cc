// Lets an addon built on a new Linux load on glibc 2.28 (RHEL 8, Debian 10).
//
// The linker binds each C library call to the newest version of its symbol that the build machine
// has, even where the old one does the same. Here `--wrap` (OldGlibc.cmake) sends every call of the
// listed functions, those inside the static libstdc++ included, through a jump to the version of
// x86-64's first glibc that the function was in. scripts/check-prebuilds.mjs says what is missing
// in the list.

#define USE_VERSION(name, version)                          \
  __asm__(".section .text.old_" #name                       \
          ",\"ax\",@progbits\n"                             \
          ".hidden __wrap_" #name                           \
          "\n"                                              \
          ".globl __wrap_" #name                            \
          "\n"                                              \
          ".type __wrap_" #name                             \
          ", @function\n"                                   \
          "__wrap_" #name                                   \
          ":\n"                                             \
          "  jmp old_" #name                                \
          "@PLT\n"                                          \
          ".size __wrap_" #name ", .-__wrap_" #name         \
          "\n"                                              \
          ".symver old_" #name ", " #name "@GLIBC_" version \
          "\n"                                              \
          ".text\n");
#include "old_glibc.def"

#include <fcntl.h>
#include <cerrno>
#include <climits>
#include <cstring>
#include <unistd.h>

// CUDA's static runtime asks for shared memory, which was in librt before 2.34, and nothing here
// loads librt. What glibc does, on the file system that it has there.
static bool shared_memory_path(const char* name, char (&path)[NAME_MAX + 16]) {
  while (*name == '/') name++;
  const size_t length = std::strlen(name);
  if (length == 0 || length > NAME_MAX || std::strchr(name, '/')) {
    errno = EINVAL;
    return false;
  }
  std::memcpy(path, "/dev/shm/", 9);
  std::memcpy(path + 9, name, length + 1);
  return true;
}
extern "C" {
__attribute__((visibility("hidden"))) int __wrap_shm_open(const char* name, int flags,
                                                          mode_t mode) {
  char path[NAME_MAX + 16];
  return shared_memory_path(name, path)
             ? open(path, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, mode)
             : -1;
}
__attribute__((visibility("hidden"))) int __wrap_shm_unlink(const char* name) {
  char path[NAME_MAX + 16];
  return shared_memory_path(name, path) ? unlink(path) : -1;
}
}

// glibc 2.32 tells here that a process has one thread, so that libstdc++ may skip atomic
// instructions in shared_ptr. Ours says "no": always correct.
extern "C" {
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;
}
