// Node-API on Windows, taken from the program that loads the addon. An import library would name
// node.exe, and Electron, Bun and a renamed Node are none.
#include <windows.h>

// The compiler calls an imported function through this pointer. The list is made from Node's
// headers (cmake/NodeApi.cmake); what an older host lacks stays null and is not called.
#define DIRALIGN_HOST_FUNCTION(name) \
  extern "C" {                       \
  FARPROC __imp_##name;              \
  }
#include "host_functions.def"
#undef DIRALIGN_HOST_FUNCTION

namespace {

__attribute__((constructor)) void find_host_functions() {
  HMODULE host = GetModuleHandleW(L"libnode.dll");  // of a Node that is built as a library
  if (!host) host = GetModuleHandleW(nullptr);
#define DIRALIGN_HOST_FUNCTION(name) __imp_##name = GetProcAddress(host, #name);
#include "host_functions.def"
}

}  // namespace
