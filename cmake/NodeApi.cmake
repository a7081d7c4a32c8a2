# Under cmake-js CMAKE_JS_INC is given; otherwise ask the two npm packages where their headers are,
# so that plain cmake, IDEs and clangd need neither cmake-js nor a download of Node's headers.
if(NOT CMAKE_JS_INC)
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
