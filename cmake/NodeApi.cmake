# Where the headers of Node-API and of its C++ wrapper are: in the package, where scripts/prepack.mjs
# has put them; in a clone in the two npm packages, which cmake-js names in CMAKE_JS_INC and which
# node is asked for otherwise, so that plain cmake, IDEs and clangd need neither cmake-js nor a
# download of Node's headers.
set(_vendored "${CMAKE_CURRENT_SOURCE_DIR}/vendor")
if(EXISTS "${_vendored}")
  # Before those of a cmake-js that the project around the package has.
  set(CMAKE_JS_INC "${_vendored}/node-api-headers/include" "${_vendored}/node-addon-api" ${CMAKE_JS_INC})
elseif(NOT CMAKE_JS_INC)
  find_program(NODE_EXECUTABLE NAMES node nodejs)
  if(NOT NODE_EXECUTABLE)
    message(FATAL_ERROR "diralign: node is not on the PATH")
  endif()
  execute_process(
    COMMAND "${NODE_EXECUTABLE}" -p
      "[require('node-api-headers').include_dir, require('path').resolve(require('node-addon-api').include_dir)].join(';')"
    WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}"
    OUTPUT_VARIABLE CMAKE_JS_INC OUTPUT_STRIP_TRAILING_WHITESPACE
    ERROR_QUIET RESULT_VARIABLE _failed)
  if(_failed)
    message(FATAL_ERROR "diralign: node-api-headers and node-addon-api are not installed; run `npm ci` first")
  endif()
endif()

# diralign_find_host_functions(target): see src/node/windows_host.cc.
function(diralign_find_host_functions target)
  set(names "")
  foreach(directory IN LISTS CMAKE_JS_INC)
    foreach(header js_native_api.h node_api.h)
      if(EXISTS "${directory}/${header}")
        file(READ "${directory}/${header}" text)
        string(REGEX MATCHALL "NAPI_CDECL[ \r\n]+n[a-z0-9_]+\\(" found "${text}")
        list(APPEND names ${found})
      endif()
    endforeach()
  endforeach()
  list(TRANSFORM names REPLACE "^NAPI_CDECL[ \r\n]+(.*)\\(" "DIRALIGN_HOST_FUNCTION(\\1)")
  list(REMOVE_DUPLICATES names)
  list(JOIN names "\n" names)
  set(folder "${CMAKE_CURRENT_BINARY_DIR}/host_functions")
  file(WRITE "${folder}/host_functions.def" "${names}\n")
  target_include_directories(${target} PRIVATE "${folder}")
  target_sources(${target} PRIVATE src/node/windows_host.cc)
endfunction()
