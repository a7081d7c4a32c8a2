# For tools that speak only node-gyp (`node-gyp rebuild`, electron-rebuild): hands the work to CMake.
# Not published: with it in the tarball, npm would run node-gyp at every install.
{
  'targets': [{
    'target_name': 'diralign',
    'type': 'none',
    'actions': [{
      'action_name': 'cmake',
      'message': 'Building with CMake',
      'inputs': ['CMakeLists.txt', 'scripts/build-native.mjs'],
      # Never made, so that the action always runs: CMake knows best what is out of date.
      'outputs': ['<(INTERMEDIATE_DIR)/always'],
      'action': ['node', 'scripts/build-native.mjs', '--config', '<(CONFIGURATION_NAME)', '-D', 'DIRALIGN_CUDA=AUTO'],
    }],
  }],
}
