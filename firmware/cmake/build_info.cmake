# What the firmware says it was built from: version, compiler, flags, and a hash over all of them and every source.
# Target: build_info.
set(source_folders kernels runtime link cmake linux)
if(NOT BOARD STREQUAL "linux")
  set(source_folders kernels runtime link cmake boards/common boards/common/stm32 boards/${BOARD})
endif()
set(source_patterns CMakeLists.txt)
foreach(folder IN LISTS source_folders)
  foreach(extension c h S ld cmake py txt cddl)
    list(APPEND source_patterns "${folder}/*.${extension}")
  endforeach()
endforeach()
file(GLOB hashed_sources CONFIGURE_DEPENDS RELATIVE "${CMAKE_CURRENT_SOURCE_DIR}" ${source_patterns})

get_filename_component(compiler_path "${CMAKE_C_COMPILER}" REALPATH)
get_filename_component(compiler_name "${compiler_path}" NAME)
list(JOIN reported_flags " " flags_text)
add_custom_command(
  OUTPUT "${CMAKE_BINARY_DIR}/generated/build_info.c"
  COMMAND "${Python3_EXECUTABLE}" "${CMAKE_CURRENT_SOURCE_DIR}/cmake/build_info.py"
          --output "${CMAKE_BINARY_DIR}/generated/build_info.c" --root "${CMAKE_CURRENT_SOURCE_DIR}"
          --firmware-version "${FIRMWARE_VERSION}" --compiler "${compiler_name} ${CMAKE_C_COMPILER_VERSION}"
          --flags=${flags_text} ${hashed_sources}
  DEPENDS ${hashed_sources} cmake/build_info.py
  WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}"
  COMMENT "Hashing the sources"
  VERBATIM)
add_library(build_info STATIC "${CMAKE_BINARY_DIR}/generated/build_info.c")
target_include_directories(build_info PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}")
