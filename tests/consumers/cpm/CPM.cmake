# SPDX-License-Identifier: MIT
# What CPM.cmake does with these arguments, as it has to be downloaded.
include(FetchContent)

function(CPMAddPackage)
  cmake_parse_arguments(PARSE_ARGV 0 package "" "NAME;VERSION;GIT_REPOSITORY" "")
  if(package_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "not understood: ${package_UNPARSED_ARGUMENTS}")
  endif()
  FetchContent_Declare(
    ${package_NAME}
    GIT_REPOSITORY ${package_GIT_REPOSITORY}
    GIT_TAG v${package_VERSION})
  FetchContent_MakeAvailable(${package_NAME})
endfunction()
