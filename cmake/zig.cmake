# A toolchain file: zig as a cross compiler, for scripts/build-prebuilds.mjs. DIRALIGN_ZIG is the
# executable, DIRALIGN_ZIG_TARGET what it compiles for, such as aarch64-linux-gnu.2.28.
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES DIRALIGN_ZIG DIRALIGN_ZIG_TARGET)
string(REGEX MATCH "^([^-]+)-([^-.]+)" _ "${DIRALIGN_ZIG_TARGET}")
set(CMAKE_SYSTEM_PROCESSOR "${CMAKE_MATCH_1}")
if(CMAKE_MATCH_2 STREQUAL "macos")
  set(CMAKE_SYSTEM_NAME Darwin)
elseif(CMAKE_MATCH_2 STREQUAL "windows")
  set(CMAKE_SYSTEM_NAME Windows)
else()
  set(CMAKE_SYSTEM_NAME Linux)
endif()

# Nothing is linked to try the compiler: zig would compile its C library for that alone, unoptimized.
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_CXX_COMPILER "${DIRALIGN_ZIG}" c++)
# By itself it makes information for debuggers.
set(CMAKE_CXX_FLAGS_INIT -g0)
set(CMAKE_MODULE_LINKER_FLAGS_INIT -s)
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  # For its C++ library, which it compiles when it links. Elsewhere memcpy may come from zig, and copies bytes one by one then.
  string(APPEND CMAKE_MODULE_LINKER_FLAGS_INIT " -Os")
endif()
set(CMAKE_CXX_COMPILER_TARGET "${DIRALIGN_ZIG_TARGET}")
set(CMAKE_CXX_ARCHIVE_CREATE "\"${DIRALIGN_ZIG}\" ar qc <TARGET> <LINK_FLAGS> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_FINISH "\"${DIRALIGN_ZIG}\" ranlib <TARGET>")
set(DIRALIGN_X86_LEVEL "-march=x86_64_v" CACHE STRING "How the compiler names a level of x86-64")
set(CMAKE_USER_MAKE_RULES_OVERRIDE_CXX "${CMAKE_CURRENT_LIST_DIR}/zig_rules.cmake")
# No resources are compiled, and CMake looks for a compiler of them.
set(CMAKE_RC_COMPILER "${DIRALIGN_ZIG}")
set(CMAKE_RC_COMPILER_WORKS TRUE)
