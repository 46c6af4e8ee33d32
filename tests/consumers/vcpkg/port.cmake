# SPDX-License-Identifier: MIT
# cmake -DFOLDER=... -P port.cmake: runs the portfile as vcpkg would, into FOLDER/packages. What
# vcpkg's functions do is done here in short, as vcpkg itself has to be downloaded.
cmake_minimum_required(VERSION 3.22)
set(PORT linnet)
set(CURRENT_PACKAGES_DIR ${FOLDER}/packages)
set(port_folder ${CMAKE_CURRENT_LIST_DIR}/../../../packaging/vcpkg/ports/linnet)

function(vcpkg_cmake_configure)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" SOURCE_PATH OPTIONS)
  execute_process(
    COMMAND ${CMAKE_COMMAND} -G Ninja -S ${arg_SOURCE_PATH} -B ${FOLDER}/build ${arg_OPTIONS}
            -DCMAKE_INSTALL_PREFIX=${CURRENT_PACKAGES_DIR} -DCMAKE_INSTALL_LIBDIR=lib
            -DCMAKE_BUILD_TYPE=Release
    COMMAND_ERROR_IS_FATAL ANY)
endfunction()

function(vcpkg_cmake_install)
  execute_process(COMMAND ${CMAKE_COMMAND} --build ${FOLDER}/build --target install
                  COMMAND_ERROR_IS_FATAL ANY)
endfunction()

# The package's files move to share/linnet, one folder nearer to the prefix.
function(vcpkg_cmake_config_fixup)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" CONFIG_PATH "")
  file(MAKE_DIRECTORY ${CURRENT_PACKAGES_DIR}/share)
  file(RENAME ${CURRENT_PACKAGES_DIR}/${arg_CONFIG_PATH} ${CURRENT_PACKAGES_DIR}/share/${PORT})
  set(up "get_filename_component(_IMPORT_PREFIX \"\${_IMPORT_PREFIX}\" PATH)\n")
  file(GLOB files ${CURRENT_PACKAGES_DIR}/share/${PORT}/*.cmake)
  foreach(file IN LISTS files)
    file(READ ${file} text)
    string(REPLACE "/../../../" "/../../" text "${text}")
    string(REPLACE "${up}${up}${up}" "${up}${up}" text "${text}")
    file(WRITE ${file} "${text}")
  endforeach()
endfunction()

function(vcpkg_fixup_pkgconfig)
  if(NOT EXISTS ${CURRENT_PACKAGES_DIR}/share/pkgconfig/linnet.pc)
    message(FATAL_ERROR "no linnet.pc in share/pkgconfig")
  endif()
endfunction()

function(vcpkg_install_copyright)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "" FILE_LIST)
  file(INSTALL ${arg_FILE_LIST} DESTINATION ${CURRENT_PACKAGES_DIR}/share/${PORT})
endfunction()

file(REMOVE_RECURSE ${FOLDER})
file(READ ${port_folder}/vcpkg.json manifest)
string(JSON name GET "${manifest}" name)
string(JSON version GET "${manifest}" version)
include(${port_folder}/portfile.cmake)

# What vcpkg complains about: folders that are empty, or files where they do not belong.
file(GLOB left RELATIVE ${CURRENT_PACKAGES_DIR} ${CURRENT_PACKAGES_DIR}/*)
if(NOT name STREQUAL PORT OR NOT left STREQUAL "include;share")
  message(FATAL_ERROR "the port ${name} ${version} leaves ${left}")
endif()
