# The CUDA backend: DIRALIGN_CUDA says whether there is one, and the target diralign_cuda has the registry of backends with it.
#
#   AUTO      cuda/ through nvcc where one is found that can build it, otherwise OFF; OFF under sanitizers
#   ON        the same, and an error where there is none
#   OFF       none: the addon says that it has no CUDA kernels
#   EMULATED  cuda/ as C++ on the emulation of CUDA in tests/simt: for tests only
#
# DIRALIGN_PTX, with EMULATED, is a folder of the loss kernels' PTX as C++, to be run in their place;
# scripts/test-ptx.mjs makes it.
#
# nvcc is looked for in CUDACXX, CUDA_HOME, CUDA_PATH, the PATH and /usr/local/cuda.
set(DIRALIGN_CUDA "AUTO" CACHE STRING "CUDA backend: AUTO, ON, OFF or EMULATED")
set_property(CACHE DIRALIGN_CUDA PROPERTY STRINGS AUTO ON OFF EMULATED)
# Machine code for each generation; the last with PTX for those to come, and 80 with PTX for those in between that have no code here, such
# as 8.7 and 11.0.
set(_cuda_all "75-real;80;86-real;89-real;90-real;100-real;120")
set(_cuda_architectures all)
if(DEFINED ENV{DIRALIGN_CUDA_ARCHITECTURES})
  set(_cuda_architectures "$ENV{DIRALIGN_CUDA_ARCHITECTURES}")
endif()
set(DIRALIGN_CUDA_ARCHITECTURES "${_cuda_architectures}" CACHE STRING
  "Architectures of the CUDA backend, as CMAKE_CUDA_ARCHITECTURES takes them, or all")
set(_cuda_architectures "${DIRALIGN_CUDA_ARCHITECTURES}")
if(_cuda_architectures STREQUAL "all")
  set(_cuda_architectures "${_cuda_all}")
endif()
if(NOT DIRALIGN_CUDA MATCHES "^(AUTO|ON|OFF|EMULATED)$")
  message(FATAL_ERROR "diralign: DIRALIGN_CUDA is AUTO, ON, OFF or EMULATED, not ${DIRALIGN_CUDA}")
endif()
file(GLOB CUDA_KERNELS CONFIGURE_DEPENDS cuda/*.cu)
file(GLOB CUDA_HOST_SOURCES CONFIGURE_DEPENDS cuda/*.cc)
set(CUDA_LOSS_KERNELS ${CUDA_KERNELS})
list(FILTER CUDA_LOSS_KERNELS INCLUDE REGEX "/(loss|gradient)_[^/]*$")

# The first release that knows every architecture of the list.
set(_cuda_oldest 12.8)
# What this build has, in words; scripts/build-native.mjs repeats it.
set(_cuda_backend "without CUDA")
set(_cuda_implementation OFF)

if(DIRALIGN_CUDA STREQUAL "EMULATED")
  set(_cuda_implementation EMULATED)
  set(_cuda_backend "with CUDA emulated")
elseif(DIRALIGN_CUDA STREQUAL "AUTO" AND DIRALIGN_SANITIZE)
  set(_cuda_backend "without CUDA (sanitizers)")
elseif(NOT DIRALIGN_CUDA STREQUAL "OFF")
  set(_nvcc "${CMAKE_CUDA_COMPILER}")
  if(NOT _nvcc AND DEFINED ENV{CUDACXX})
    set(_nvcc "$ENV{CUDACXX}")
  endif()
  foreach(_variable CUDA_HOME CUDA_PATH)
    if(NOT _nvcc AND DEFINED ENV{${_variable}} AND EXISTS "$ENV{${_variable}}/bin/nvcc")
      set(_nvcc "$ENV{${_variable}}/bin/nvcc")
    endif()
  endforeach()
  if(NOT _nvcc)
    find_program(DIRALIGN_NVCC nvcc PATHS /usr/local/cuda/bin)
    mark_as_advanced(DIRALIGN_NVCC)
    set(_nvcc "${DIRALIGN_NVCC}")
  endif()

  set(_problem "no nvcc found")
  if(_nvcc)
    execute_process(COMMAND "${_nvcc}" --version OUTPUT_VARIABLE _version ERROR_QUIET RESULT_VARIABLE _failed)
    if(NOT _failed AND _version MATCHES "release ([0-9]+\\.[0-9]+)")
      set(_version "${CMAKE_MATCH_1}")
      set(_problem "")
      if(_version VERSION_LESS _cuda_oldest)
        set(_problem "nvcc ${_version} is older than ${_cuda_oldest}")
      endif()
    else()
      set(_problem "${_nvcc} does not run")
    endif()
  endif()
  if(NOT _problem)
    set(CMAKE_CUDA_ARCHITECTURES "${_cuda_architectures}")
    # Through the environment: a compiler that is set is not tried out, and one that does not work would then be fatal.
    set(ENV{CUDACXX} "${_nvcc}")
    if(NOT CMAKE_CUDA_COMPILER)
      unset(CMAKE_CUDA_COMPILER CACHE)
    endif()
    include(CheckLanguage)
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
      enable_language(CUDA)
      message(STATUS "diralign: nvcc ${CMAKE_CUDA_COMPILER_VERSION}")
      foreach(_kind STANDARD EXTENSION)
        if(NOT CMAKE_CUDA20_${_kind}_COMPILE_OPTION)
          set(CMAKE_CUDA20_${_kind}_COMPILE_OPTION -std=c++20) # CMake before 3.26 knows none
        endif()
      endforeach()
      set(_cuda_implementation NVCC)
      string(REGEX REPLACE "-(real|virtual)" "" _cuda_architectures "${_cuda_architectures}")
      string(REPLACE ";" "," _cuda_architectures "${_cuda_architectures}")
      set(_cuda_backend "with CUDA ${_version} for ${_cuda_architectures}")
    else()
      set(_problem "nvcc ${_version} does not work with this compiler")
    endif()
  endif()
  if(_problem)
    if(DIRALIGN_CUDA STREQUAL "ON")
      message(FATAL_ERROR "diralign: DIRALIGN_CUDA=ON, but ${_problem}; set CUDACXX or CUDA_HOME")
    endif()
    set(_cuda_backend "without CUDA (${_problem})")
  endif()
endif()
set(DIRALIGN_BACKEND "${_cuda_backend}" CACHE INTERNAL "")
message(STATUS "diralign: ${_cuda_backend}")

if(_cuda_implementation STREQUAL "NVCC")
  add_library(diralign_cuda STATIC ${CUDA_KERNELS} ${CUDA_HOST_SOURCES})
  # The runtime is linked statically and opens the driver itself: the addon loads where there is none.
  set_target_properties(diralign_cuda PROPERTIES
    CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden)
  target_include_directories(diralign_cuda SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  # What is PTX alone is no machine code: its times say nothing of the kernels.
  foreach(_kind ARCHITECTURES PTX)
    set(_list "${CMAKE_CUDA_ARCHITECTURES}")
    if(_kind STREQUAL "PTX")
      list(FILTER _list EXCLUDE REGEX "-real$")
    else()
      list(FILTER _list EXCLUDE REGEX "-virtual$")
    endif()
    list(TRANSFORM _list REPLACE "-(real|virtual)$" "")
    list(JOIN _list "," _list)
    target_compile_definitions(diralign_cuda PRIVATE "DIRALIGN_CUDA_${_kind}=\"${_list}\"")
  endforeach()
  # The smallest form that the drivers of this release of CUDA can read.
  set(_compress "-Xfatbin=-compress-all")
  if(_version VERSION_GREATER_EQUAL 13)
    set(_compress "--compress-mode=size")
  endif()
  target_compile_options(diralign_cuda PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:--threads=0;${_compress}>")
  if(DIRALIGN_WERROR)
    # What ptxas -v says is for scripts/check-cuda.mjs.
    target_compile_options(diralign_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xptxas=-v>)
  endif()
  # The loss kernels' PTX, for scripts/test-ptx.mjs.
  add_library(diralign_loss_ptx OBJECT EXCLUDE_FROM_ALL ${CUDA_LOSS_KERNELS})
  set_target_properties(diralign_loss_ptx PROPERTIES
    CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF CUDA_PTX_COMPILATION ON)
  target_include_directories(diralign_loss_ptx PRIVATE src)
elseif(_cuda_implementation STREQUAL "EMULATED")
  if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/tests/simt/CMakeLists.txt")
    message(FATAL_ERROR "diralign: the emulation of CUDA is in the repository only, not in the package")
  endif()
  add_subdirectory(tests/simt)
  set(_kernel_options -xc++)
  if(DIRALIGN_SANITIZE)
    # The second level of optimisation takes a third of the compiler's time, and sanitized kernels run no faster with it.
    list(APPEND _kernel_options -O1)
  endif()
  set_source_files_properties(${CUDA_KERNELS} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "${_kernel_options}")
  add_library(diralign_cuda STATIC ${CUDA_KERNELS} ${CUDA_HOST_SOURCES})
  target_compile_definitions(diralign_cuda PRIVATE "DIRALIGN_CUDA_ARCHITECTURES=\"emulation\"" "DIRALIGN_CUDA_PTX=\"\""
    PUBLIC "DIRALIGN_CUBLASLT_DEFAULT=\"$<TARGET_FILE:diralign_cublaslt>\"" "DIRALIGN_NCCL_DEFAULT=\"$<TARGET_FILE:diralign_nccl>\"")
  add_dependencies(diralign_cuda diralign_cublaslt diralign_cublaslt-12 diralign_cublaslt-lacking diralign_nccl diralign_nccl-old)
  target_include_directories(diralign_cuda PUBLIC cuda) # the native tests look inside
  target_link_libraries(diralign_cuda PUBLIC diralign_simt)
  if(DIRALIGN_PTX)
    file(GLOB _ptx CONFIGURE_DEPENDS "${DIRALIGN_PTX}/*.cc")
    # What ptxas may fuse stays apart, and PTX has registers and variables that it does not use.
    set_source_files_properties(${_ptx} PROPERTIES COMPILE_OPTIONS
      "-O1;-ffp-contract=off;-Wno-unused;-Wno-uninitialized;-Wno-maybe-uninitialized;-Wno-psabi")
    add_library(diralign_ptx OBJECT ${_ptx})
    target_include_directories(diralign_ptx PRIVATE cuda)
    target_link_libraries(diralign_ptx PRIVATE diralign_core diralign_simt)
    # In the program itself, where the linker prefers them to the templates' symbols, which are weak.
    target_sources(diralign_cuda INTERFACE $<TARGET_OBJECTS:diralign_ptx>)
  endif()
else()
  add_library(diralign_cuda STATIC)
endif()
target_sources(diralign_cuda PRIVATE src/backends/registry.cc)
if(NOT _cuda_implementation STREQUAL "OFF")
  target_compile_definitions(diralign_cuda PRIVATE DIRALIGN_CUDA_BACKEND=1)
endif()
target_link_libraries(diralign_cuda PUBLIC diralign_core)
